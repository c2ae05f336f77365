package summary

import (
	"fmt"
	"strings"
	"unicode"
)

// plain is a text of others on one line: neither control characters nor those that turn
// the direction of text around, and no more than limit characters.
func plain(s string, limit int) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)), " ")
	if runes := []rune(s); len(runes) > limit {
		return string(runes[:limit-1]) + "…"
	}
	return s
}

// md is a text of others in Markdown, in a table or out of it. What could mean something
// there is a character reference: those never are structure.
func md(s string, limit int) string {
	var b strings.Builder
	text := []rune(plain(s, limit))
	word := func(i int) bool {
		return i >= 0 && i < len(text) && (unicode.IsLetter(text[i]) || unicode.IsDigit(text[i]))
	}
	for i, r := range text {
		switch {
		case word(i), unicode.IsMark(r), strings.ContainsRune(" .,/()+-='?;…", r),
			r == '_' && word(i-1) && word(i+1),              // no emphasis inside a word
			r == ':' && i+1 < len(text) && text[i+1] == ' ': // neither an address nor an emoji
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "&#%d;", r)
		}
	}
	// GitHub makes a link of what begins so.
	return strings.ReplaceAll(b.String(), "www.", "www&#46;")
}

// label is a text of others in a diagram, where nothing can be escaped.
func label(s string, limit int) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(" .-_", r):
			return r
		}
		return '_'
	}, plain(s, limit))
}
