// Package docs holds those documents that programs read, too. The tests run under the very
// policy that people are told to paste; the product itself imports nothing from here.
package docs

import _ "embed"

// TailnetPolicy is tailnet-policy.hujson.
//
//go:embed tailnet-policy.hujson
var TailnetPolicy []byte
