package control

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Tokens with which a job may ask the server's issuer for its identity token, as
// GitHub's runner gives them in ACTIONS_ID_TOKEN_REQUEST_TOKEN. Each is another
// job's.
const (
	// OIDCRequestToken is of a job that the identity [FederatedID] is for: on the
	// branch main of acme/site.
	OIDCRequestToken = "lab-job-of-main"
	// OIDCPullRequestToken is of a job of the same repository that it is not for.
	OIDCPullRequestToken = "lab-job-of-pull-request"
	// OIDCLateRequestToken is of a job like the first, whose identity token has
	// expired when it gets it.
	OIDCLateRequestToken = "lab-job-too-late"
)

// OIDCRequestURL is where a job asks for its identity token, as GitHub's runner
// gives it in ACTIONS_ID_TOKEN_REQUEST_URL, for the control server at url. The
// audience is to be added to it.
func OIDCRequestURL(url string) string { return OIDCIssuer(url) + "/token?api-version=2.0" }

// OIDCIssuer is who issues identity tokens at the control server at url.
func OIDCIssuer(url string) string { return url + "/oidc" }

// oidcLife is how long an identity token lives, as at GitHub.
const oidcLife = 5 * time.Minute

// oidcJob is what an identity token tells of a job.
type oidcJob struct {
	subject, event, ref string
	age                 time.Duration // of its identity token, when it gets it
}

var oidcJobs = map[string]oidcJob{
	OIDCRequestToken:     {"repo:acme/site:ref:refs/heads/main", "push", "refs/heads/main", 0},
	OIDCPullRequestToken: {"repo:acme/site:pull_request", "pull_request", "refs/pull/7/merge", 0},
	OIDCLateRequestToken: {"repo:acme/site:ref:refs/heads/main", "push", "refs/heads/main", oidcLife + time.Minute},
}

// oidc issues identity tokens, and verifies them as Tailscale would with the keys
// that an issuer publishes.
type oidc struct {
	issuer string
	key    func() (*rsa.PrivateKey, error) // makes it when it is first needed, which takes a while
}

func newOIDC(url string) *oidc {
	return &oidc{issuer: OIDCIssuer(url), key: sync.OnceValues(func() (*rsa.PrivateKey, error) {
		return rsa.GenerateKey(rand.Reader, 2048)
	})}
}

// claims are GitHub's, as far as anybody here might look at them.
type claims struct {
	jwt.RegisteredClaims
	Audience        string `json:"aud"` // one string, in place of the embedded list
	Ref             string `json:"ref"`
	EventName       string `json:"event_name"`
	Repository      string `json:"repository"`
	RepositoryOwner string `json:"repository_owner"`
	RunID           string `json:"run_id"`
	RunAttempt      string `json:"run_attempt"`
}

// GetAudience implements [jwt.Claims].
func (c claims) GetAudience() (jwt.ClaimStrings, error) { return jwt.ClaimStrings{c.Audience}, nil }

// routes adds the call with which a job asks for its identity token.
func (o *oidc) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /oidc/token", func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		job, ok := oidcJobs[token]
		if !ok || !strings.EqualFold(scheme, "bearer") {
			apiError(w, http.StatusUnauthorized, "no job has this token")
			return
		}
		query := r.URL.Query()
		if query.Get("api-version") != "2.0" {
			apiError(w, http.StatusBadRequest, "unknown api-version")
			return
		}
		audience := query.Get("audience")
		if audience == "" {
			audience = "https://github.com/acme"
		}
		signed, err := o.issue(job, audience)
		if err != nil {
			apiError(w, http.StatusInternalServerError, err.Error())
			return
		}
		apiAnswer(w, map[string]any{"count": len(signed), "value": signed})
	})
}

func (o *oidc) issue(job oidcJob, audience string) (string, error) {
	key, err := o.key()
	if err != nil {
		return "", err
	}
	begin := time.Now().Add(-job.age)
	return jwt.NewWithClaims(jwt.SigningMethodRS256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			ID:        rand.Text(),
			Issuer:    o.issuer,
			Subject:   job.subject,
			IssuedAt:  jwt.NewNumericDate(begin),
			NotBefore: jwt.NewNumericDate(begin.Add(-oidcLife)),
			ExpiresAt: jwt.NewNumericDate(begin.Add(oidcLife)),
		},
		Audience: audience, Ref: job.ref, EventName: job.event, Repository: "acme/site", RepositoryOwner: "acme", RunID: "4711", RunAttempt: "1",
	}).SignedString(key)
}

// verify says why the federated identity does not take the token, nil if it does.
func (o *oidc) verify(token string, c Credential) error {
	if c.Audience == "" || c.Subject == "" {
		return errors.New("the federated identity is for nobody")
	}
	var got claims
	_, err := jwt.ParseWithClaims(token, &got, func(*jwt.Token) (any, error) {
		key, err := o.key()
		if err != nil {
			return nil, err
		}
		return &key.PublicKey, nil
	}, jwt.WithValidMethods([]string{jwt.SigningMethodRS256.Alg()}), jwt.WithIssuer(o.issuer),
		jwt.WithAudience(c.Audience), jwt.WithExpirationRequired(), jwt.WithIssuedAt())
	if err != nil {
		return err
	}
	if !matchSubject(c.Subject, got.Subject) {
		return fmt.Errorf("subject %q is not %q", got.Subject, c.Subject)
	}
	return nil
}

func matchSubject(pattern, subject string) bool {
	re := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*")
	ok, err := regexp.MatchString("(?s)^"+re+"$", subject)
	return err == nil && ok
}
