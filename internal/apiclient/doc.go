// Package apiclient calls a coordinator's API.
//
// client.gen.go is generated from openapi.yaml and never edited: its types are what goes
// over the wire, for the server as well, so that the two can't differ. API is the thin
// layer that the builder and the stop command use: it bounds every call in time and every
// answer in size, and turns problems into errors that can be told apart.
//
// To regenerate after a change of openapi.yaml, run `make generate`.
package apiclient
