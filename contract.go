// Package contract holds openapi.yaml, the contract of the API, so that the binary can
// serve it and the tests can hold the server to it. The document stands at the root of the
// repository, where people and generators look for it; embedding it takes a package there.
package contract

import _ "embed"

// OpenAPI is openapi.yaml.
//
//go:embed openapi.yaml
var OpenAPI []byte
