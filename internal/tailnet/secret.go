package tailnet

import (
	"log/slog"
	"regexp"
	"strings"
)

// Secret is a string that does not show itself: not in print, not in JSON and
// not in a log. Convert it to a string to use it.
type Secret string

const redacted = "[redacted]"

func (Secret) String() string               { return redacted }
func (Secret) GoString() string             { return redacted }
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Secret) LogValue() slog.Value         { return slog.StringValue(redacted) }

// secretLike matches whatever Tailscale calls a key and whatever begins as a JSON Web
// Token does, whoever it belongs to, cut off or not.
var secretLike = regexp.MustCompile(`tskey-[A-Za-z0-9_-]+|\beyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)*`)

// scrub takes the secrets, and anything that looks like one, out of what another
// program wrote.
func (o *JoinOptions) scrub(text string) string {
	return o.IDToken.scrub(o.AuthKey.scrub(text))
}

// scrub takes the secret, and anything that looks like one, out of what another
// program wrote.
func (s Secret) scrub(text string) string {
	bare, _, _ := strings.Cut(string(s), "?") // attributes may have been cut off
	for _, secret := range []string{string(s), bare} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, redacted)
		}
	}
	return secretLike.ReplaceAllLiteralString(text, redacted)
}
