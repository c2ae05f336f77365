// Package problem names the kinds of problems (RFC 9457) that the API answers with.
//
// A kind is a Slug: the last part of the problem's type URI, a section of
// docs/problems.md, and an error that errors.Is finds in what the client returns. The
// server renders slugs and the client reads them, so they live here, once.
package problem

import "strings"

// Base is what every problem's type begins with; the slug follows.
const Base = "https://github.com/Misaka13514/setup-distributed-nix-builds/blob/main/docs/problems.md#"

// MediaType is the content type of a problem.
const MediaType = "application/problem+json"

// Slug is the stable name of a kind of problem.
type Slug string

// The kinds of problems. The table kinds has the status and title of each.
const (
	Malformed            Slug = "malformed"
	Forbidden            Slug = "forbidden"
	NotYours             Slug = "not-yours"
	CrossOrigin          Slug = "cross-origin"
	NotFound             Slug = "not-found"
	NotExpected          Slug = "not-expected"
	UnknownBuilder       Slug = "unknown-builder"
	MethodNotAllowed     Slug = "method-not-allowed"
	RequestTimeout       Slug = "request-timeout"
	WrongCluster         Slug = "wrong-cluster"
	NameHeld             Slug = "name-held"
	Replaced             Slug = "replaced"
	TooLarge             Slug = "too-large"
	UnsupportedMediaType Slug = "unsupported-media-type"
	Misdirected          Slug = "misdirected"
	Invalid              Slug = "invalid"
	TooManyRequests      Slug = "too-many-requests"
	TooManyStreams       Slug = "too-many-streams"
	Internal             Slug = "internal"
	Unavailable          Slug = "unavailable"
	BuildersRemain       Slug = "builders-remain"
)

// Kind is what all problems of one slug share.
type Kind struct {
	Slug   Slug
	Status int    // HTTP status
	Title  string // short, the same every time
}

// Kinds returns every kind of problem, ordered by status.
func Kinds() []Kind {
	return []Kind{
		{Malformed, 400, "The request can't be read"},
		{Forbidden, 403, "The tailnet does not grant you this call"},
		{NotYours, 403, "A builder acts for itself only"},
		{CrossOrigin, 403, "A web page of another origin may not call"},
		{NotFound, 404, "There is no such call"},
		{NotExpected, 404, "The cluster does not expect this builder"},
		{UnknownBuilder, 404, "No builder of this cluster has this id"},
		{MethodNotAllowed, 405, "The call does not take this method"},
		{RequestTimeout, 408, "The request did not arrive in time"},
		{WrongCluster, 409, "The check-in is for another cluster"},
		{NameHeld, 409, "Another node holds this name"},
		{Replaced, 410, "Another instance took this builder's place"},
		{TooLarge, 413, "The request's body is too large"},
		{UnsupportedMediaType, 415, "The request's body is not JSON"},
		{Misdirected, 421, "The request is for another host"},
		{Invalid, 422, "A value can't be"},
		{TooManyRequests, 429, "This node makes too many requests"},
		{TooManyStreams, 429, "This node has too many event streams open"},
		{Internal, 500, "The server failed"},
		{Unavailable, 503, "The server can't tell who calls"},
		{BuildersRemain, 504, "Some builders have not left"},
	}
}

// Kind returns what all problems of the slug share; the zero Kind if there are none.
func (s Slug) Kind() Kind {
	for _, k := range Kinds() {
		if k.Slug == s {
			return k
		}
	}
	return Kind{}
}

// URI returns the type of the slug's problems.
func (s Slug) URI() string { return Base + string(s) }

// Error makes a slug something to ask for:
//
//	if errors.Is(err, problem.Replaced) { ... }
func (s Slug) Error() string { return string(s) }

// FromURI returns the slug of a problem's type; empty if it is none of ours.
func FromURI(uri string) Slug {
	slug, ok := strings.CutPrefix(uri, Base)
	if !ok {
		return ""
	}
	return Slug(slug).Kind().Slug
}
