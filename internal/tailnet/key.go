package tailnet

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// oauthSecret is how the secret of an OAuth client begins.
const oauthSecret = "tskey-client-"

// What may stand behind a "?" in the secret of an OAuth client. Nodes that nobody will
// remove have to be ephemeral, and nodes that nobody watches can't wait for approval, so
// what is missing of the first two becomes true.
const (
	ephemeral     = "ephemeral"
	preauthorized = "preauthorized"
	baseURL       = "baseURL" // of the API that takes the secret
)

// ParseKey reads what a user gives as key, and returns it as tailscale takes it: the
// secret of an OAuth client (tskey-client-...) with "ephemeral" and "preauthorized", any
// other key without, as people paste them from the one to the other. White space around
// it is dropped. No error shows the key.
func ParseKey(text string) (Secret, error) {
	text = strings.TrimSpace(text)
	key, query, _ := strings.Cut(text, "?")
	switch {
	case strings.ContainsFunc(text, unicode.IsSpace):
		return "", errors.New("the auth key has white space inside: give the key alone")
	case strings.HasPrefix(key, "tskey-api-"):
		return "", errors.New("the auth key is an API access token (tskey-api-...), with which no node can join: give an auth key or the secret of an OAuth client")
	case strings.HasPrefix(key, oauthSecret):
		query, err := withAttributes(query)
		if err != nil {
			return "", fmt.Errorf("the secret of the OAuth client: %w", err)
		}
		return Secret(key + "?" + query), nil
	}
	attributes, _ := url.ParseQuery(query)
	if slices.ContainsFunc([]string{ephemeral, preauthorized, baseURL}, attributes.Has) {
		return Secret(key), nil
	}
	return Secret(text), nil
}

// ParseClientID reads the client id of a federated identity, and returns it as tailscale
// takes it, with "ephemeral" and "preauthorized".
func ParseClientID(text string) (string, error) {
	text = strings.TrimSpace(text)
	id, query, _ := strings.Cut(text, "?")
	switch {
	case text == "":
		return "", nil
	case strings.ContainsFunc(text, unicode.IsSpace):
		return "", errors.New("the client id has white space inside: give the id alone")
	case strings.HasPrefix(id, "tskey-"): // ids are on command lines and in logs
		return "", errors.New("the client id is a key: give a key as the auth key, or the id of a federated identity as the client id")
	case id == "":
		return "", errors.New("the client id is empty before the question mark")
	}
	query, err := withAttributes(query)
	if err != nil {
		return "", fmt.Errorf("the client id: %w", err)
	}
	return id + "?" + query, nil
}

// withAttributes returns the query with what it lacks, and otherwise as it is.
func withAttributes(query string) (string, error) {
	given, err := url.ParseQuery(query)
	if err != nil {
		return "", errors.New("what follows its question mark is not NAME=VALUE&NAME=VALUE")
	}
	var parts []string
	if query = strings.Trim(query, "&"); query != "" {
		parts = append(parts, query)
	}
	for _, name := range []string{ephemeral, preauthorized} {
		if !given.Has(name) {
			parts = append(parts, name+"=true")
		} else if _, err := strconv.ParseBool(given.Get(name)); err != nil {
			return "", fmt.Errorf("its %s is neither true nor false", name)
		}
	}
	return strings.Join(parts, "&"), nil
}
