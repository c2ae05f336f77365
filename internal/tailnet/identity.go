package tailnet

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// claims are what an identity token says of itself. Whoever issued it vouches for them to
// the tailnet; here they only tell a user what to compare with the federated identity.
type claims struct {
	Issuer   string    `json:"iss"`
	Subject  string    `json:"sub"`
	Audience audiences `json:"aud"`
	Expiry   float64   `json:"exp"` // seconds since 1970
}

// audiences is one string or a list of them, as RFC 7519 allows.
type audiences []string

func (a *audiences) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

// tokenRefused tells why no federated identity may have taken the token, as far as the
// token shows it. It shows nothing that would let anybody use it: a token is worth nothing
// without its signature.
func tokenRefused(token Secret, now time.Time) string {
	parts := strings.Split(string(token), ".")
	if len(parts) != 3 {
		return "what was given as identity token is none"
	}
	var c claims
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return "what was given as identity token can't be read"
	}
	if c.Expiry > 0 && c.Expiry < math.MaxInt32 {
		if expiry := time.Unix(int64(c.Expiry), 0).UTC(); now.After(expiry) {
			return fmt.Sprintf("this job's identity token expired at %s, %v ago: run the job again",
				expiry.Format("15:04:05 MST"), now.Sub(expiry).Round(time.Second))
		}
	}
	return fmt.Sprintf("no federated identity with this client id takes this job's identity token: compare its issuer %s, subject %s and audience %s with those of the tailnet's trust credential",
		claim(c.Issuer), claim(c.Subject), claim(strings.Join(c.Audience, " ")))
}

// claim makes one line of a claim, and not a long one.
func claim(text string) string {
	const limit = 200
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "..."
	}
	return fmt.Sprintf("%q", text)
}
