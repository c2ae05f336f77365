package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/problem"
)

// MaxBody is the size in bytes over which a request's body is refused.
const MaxBody = 64 << 10

// decodeBody reads r's body as one JSON value into v, a pointer to a type of the contract.
// It is strict: each member is known, there once, not null and of its type, and none that
// the contract requires is missing. Whether the values can be is for the domain to say.
func (s *Server) decodeBody(w http.ResponseWriter, r *http.Request, v any) error {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := params["charset"]
	switch {
	case err != nil || kind != "application/json" || (charset != "" && !strings.EqualFold(charset, "utf-8")):
		return &refusal{problem.UnsupportedMediaType, "send JSON as application/json", "Content-Type"}
	case r.Header.Get("Content-Encoding") != "":
		return &refusal{problem.UnsupportedMediaType, "send the body as it is, not encoded", "Content-Encoding"}
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	return decode(body, v)
}

// noBody refuses a request that carries one. Zero bytes, which `curl -d ”` sends, are none.
func noBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	if r.ContentLength < 0 {
		switch n, err := io.ReadFull(r.Body, make([]byte, 1)); {
		case n == 0 && errors.Is(err, io.EOF):
			bodyDone(w)
			return nil
		case n == 0:
			return unreadable(err)
		}
	}
	return &refusal{problem.Malformed, "this call takes no body", ""}
}

// bodyTime gives every body until d from now to arrive, also one that nobody asks for: the
// server reads what is left of it before the connection's next request. Until bodyDone the
// connection is marked to be closed with the answer, so that a refusal goes out at once.
func bodyTime(d time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ContentLength != 0 {
				_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d)) // not over a test's recorder
				w.Header().Set("Connection", "close")
			}
			next.ServeHTTP(w, r)
		})
	}
}

// bodyDone keeps the connection of a body that was read to its end; its deadline the server
// has lifted by then.
func bodyDone(w http.ResponseWriter) { w.Header().Del("Connection") }

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	tooLarge := &refusal{problem.TooLarge, fmt.Sprintf("a body may have %d bytes", MaxBody), ""}
	if r.ContentLength > MaxBody {
		return nil, tooLarge
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	switch {
	case err != nil:
		return nil, unreadable(err)
	case len(body) > MaxBody:
		return nil, tooLarge
	}
	bodyDone(w)
	return body, nil
}

// unreadable says why a body could not be read.
func unreadable(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &refusal{problem.RequestTimeout, "the body did not arrive in time", ""}
	}
	return &refusal{problem.Malformed, "the body ends too early or is badly framed", ""}
}

func decode(body []byte, v any) error {
	seen, err := survey(body)
	if err != nil {
		return malformed(err)
	}
	if err := seen.check("", reflect.TypeOf(v).Elem()); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v, json.RejectUnknownMembers(true)); err != nil {
		return malformed(err)
	}
	return nil
}

// members are the members of a JSON value by their pointers.
type members map[jsontext.Pointer]member

type member struct {
	kind jsontext.Kind
	text string // of a string
}

// survey walks through body, so that what decoding would pass over is seen: members that
// are null. Bad syntax and repeated members end it.
func survey(body []byte) (members, error) {
	seen := members{}
	for dec := jsontext.NewDecoder(bytes.NewReader(body)); ; {
		token, err := dec.ReadToken()
		switch {
		case errors.Is(err, io.EOF) && dec.StackDepth() == 0 && len(seen) > 0:
			return seen, nil
		case errors.Is(err, io.EOF):
			return nil, &refusal{problem.Malformed, "the body is empty", ""}
		case err != nil:
			return nil, err
		}
		at := dec.StackPointer()
		switch token.Kind() {
		case '}', ']':
		case 'n':
			return nil, &refusal{problem.Malformed, "null is no value; leave the member out", string(at)}
		case '"':
			seen[at] = member{'"', token.String()}
		default:
			seen[at] = member{kind: token.Kind()}
		}
	}
}

// check looks for the members that type t, at the pointer at, requires: the generated types
// mark the others omitempty. It also insists on the one form of a UUID that the contract
// has, where decoding knows several.
func (seen members) check(at jsontext.Pointer, t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[uuid.UUID]():
		if is := seen[at]; is.kind == '"' && len(is.text) != len(uuid.UUID{}.String()) {
			return &refusal{problem.Malformed, "not a uuid", string(at)}
		}
		return nil
	case t.Kind() != reflect.Struct:
		return nil
	}
	if kind := seen[at].kind; kind != '{' {
		return &refusal{problem.Malformed, fmt.Sprintf("want object, not %s", word(kind)), string(at)}
	}
	for i := range t.NumField() {
		field := t.Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		below := at.AppendToken(name)
		if _, there := seen[below]; there {
			if err := seen.check(below, field.Type); err != nil {
				return err
			}
		} else if !strings.Contains(options, "omitempty") {
			return &refusal{problem.Malformed, "the member is missing", string(below)}
		}
	}
	return nil
}

// malformed says what is wrong with a body in words that name the member.
func malformed(err error) error {
	if e, ok := errors.AsType[*refusal](err); ok {
		return e
	}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return &refusal{problem.Malformed, "the member is there twice", string(e.JSONPointer)}
		}
		return &refusal{problem.Malformed, fmt.Sprintf("not JSON at byte %d: %v", e.ByteOffset, e.Err), string(e.JSONPointer)}
	}
	e, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return &refusal{problem.Malformed, "not the JSON that this call takes", ""}
	}
	field := string(e.JSONPointer)
	switch {
	case errors.Is(err, json.ErrUnknownName):
		return &refusal{problem.Malformed, "the contract has no such member", field}
	case e.GoType == reflect.TypeFor[uuid.UUID]():
		return &refusal{problem.Malformed, "not a uuid", field}
	case e.JSONKind == '0' && len(e.JSONValue) > 0:
		return &refusal{problem.Malformed, "the number is too large, or not whole where it must be", field}
	}
	return &refusal{problem.Malformed, fmt.Sprintf("want %s, not %s", plain(e.GoType), word(e.JSONKind)), field}
}

// plain is JSON's word for a Go type.
func plain(t reflect.Type) string {
	if t == nil {
		return "another type"
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		return "whole number"
	case reflect.Float64:
		return "number"
	case reflect.String:
		return "string"
	case reflect.Slice:
		return "array"
	case reflect.Struct:
		return "object"
	}
	return t.Kind().String()
}

// word is what people call a kind of JSON value.
func word(k jsontext.Kind) string {
	switch k {
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '{':
		return "object"
	case '[':
		return "array"
	}
	return "this"
}
