package actions

import "strings"

// escapeData escapes what follows a command. The runner undoes just these.
func escapeData(s string) string { return dataEscaper().Replace(s) }

// escapeProperty escapes a property's value, which also ends at a colon or a comma.
func escapeProperty(s string) string { return propertyEscaper().Replace(s) }

func dataEscaper() *strings.Replacer {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
}

func propertyEscaper() *strings.Replacer {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
}
