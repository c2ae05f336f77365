package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// By these GitHub tells a job with the permission where it gets tokens, and what for.
const (
	tokenURLVar     = "ACTIONS_ID_TOKEN_REQUEST_URL"
	tokenRequestVar = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
)

const (
	tokenBound = 30 * time.Second // for all tries
	tokenTry   = 10 * time.Second
	maxToken   = 64 << 10
)

// fetchIDToken asks GitHub for the token by which this job proves to the tailnet what it
// is. The default audience is the one that Tailscale gives a federated identity.
func (a *app) fetchIDToken(ctx context.Context) (string, error) {
	endpoint, bearer := os.Getenv(tokenURLVar), os.Getenv(tokenRequestVar)
	if endpoint == "" || bearer == "" {
		return "", fmt.Errorf("%s_CLIENT_ID is set, but this job may not have an identity token: give it `permissions: id-token: write` (pull requests from forks never have it); off GitHub, use an auth key", prefix)
	}
	audience := cmp.Or(a.set.Tailnet.Audience, "api.tailscale.com/"+a.set.Tailnet.clientID())
	token, err := idToken(ctx, endpoint, bearer, audience)
	if err != nil {
		return "", fmt.Errorf("get the job's identity token: %w", err)
	}
	a.mask(token)
	return token, nil
}

// clientID is the id without attributes for the node that follow a question mark.
func (t *tailnetSettings) clientID() string {
	id, _, _ := strings.Cut(t.ClientID, "?")
	return id
}

// idToken asks until it has an answer that asking again won't change.
func idToken(ctx context.Context, endpoint, bearer, audience string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("%s is not a URL", tokenURLVar)
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	client := &http.Client{
		Timeout: tokenTry,
		// The bearer is for this server only.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return backoff.Retry(ctx, func() (string, error) {
		return requestToken(ctx, client, u.String(), bearer)
	}, backoff.WithMaxElapsedTime(tokenBound), backoff.WithMaxTries(6))
}

func requestToken(ctx context.Context, client *http.Client, endpoint, bearer string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return "", backoff.Permanent(err)
	}
	req.Header.Set("Authorization", "bearer "+bearer)
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		// The URL of GitHub's service is not for the log.
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err
		}
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		return "", err
	}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests || code >= 500:
		return "", fmt.Errorf("GitHub's token service answers %s", resp.Status)
	case code != http.StatusOK:
		return "", backoff.Permanent(fmt.Errorf("GitHub's token service answers %s", resp.Status))
	}
	var answer struct {
		Value string `json:"value"`
	}
	// What it answered may hold a token: errors don't repeat it.
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", backoff.Permanent(errors.New("GitHub's token service answers no JSON that is understood"))
	}
	if n := strings.Count(answer.Value, "."); n != 2 || strings.ContainsAny(answer.Value, " \t\r\n") {
		return "", backoff.Permanent(errors.New("GitHub's token service answers no token"))
	}
	return answer.Value, nil
}
