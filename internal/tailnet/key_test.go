package tailnet_test

import (
	"strings"
	"testing"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

func TestParseKey(t *testing.T) {
	const attributes = "ephemeral=true&preauthorized=true"
	tests := []struct {
		given, want string
	}{
		{"", ""},
		{" \n", ""},
		{"?" + attributes, ""}, // of a secret that is not set

		{"tskey-client-k-s", "tskey-client-k-s?" + attributes},
		{" tskey-client-k-s\r\n", "tskey-client-k-s?" + attributes},
		{"tskey-client-k-s?", "tskey-client-k-s?" + attributes},
		{"tskey-client-k-s?" + attributes, "tskey-client-k-s?" + attributes},
		{"tskey-client-k-s?preauthorized=true", "tskey-client-k-s?preauthorized=true&ephemeral=true"},
		{"tskey-client-k-s?ephemeral=false", "tskey-client-k-s?ephemeral=false&preauthorized=true"},
		{"tskey-client-k-s?preauthorized=0&ephemeral=F", "tskey-client-k-s?preauthorized=0&ephemeral=F"},
		{"tskey-client-k-s?baseURL=https://api.example.com", "tskey-client-k-s?baseURL=https://api.example.com&" + attributes},
		{"tskey-client-k-s?baseURL=https%3A%2F%2Fx&", "tskey-client-k-s?baseURL=https%3A%2F%2Fx&" + attributes},

		{"tskey-auth-k-s", "tskey-auth-k-s"},
		{"\ttskey-auth-k-s\n", "tskey-auth-k-s"},
		{"tskey-auth-k-s?" + attributes, "tskey-auth-k-s"},
		{"tskey-auth-k-s?ephemeral=true", "tskey-auth-k-s"},
		{"tskey-auth-k-s?baseURL=http://x", "tskey-auth-k-s"},
		{"0123abcd?preauthorized=true", "0123abcd"}, // another control server's
		{"0123?abcd", "0123?abcd"},
	}
	for _, tt := range tests {
		got, err := tailnet.ParseKey(tt.given)
		if string(got) != tt.want || err != nil {
			t.Errorf("ParseKey(%q) = %q, %v, want %q", tt.given, string(got), err, tt.want)
		}
		if again, err := tailnet.ParseKey(string(got)); again != got || err != nil {
			t.Errorf("ParseKey(%q) = %q, %v, want it as it is", string(got), string(again), err)
		}
	}
}

func TestParseClientID(t *testing.T) {
	const attributes = "ephemeral=true&preauthorized=true"
	tests := []struct {
		given, want string
	}{
		{"", ""},
		{"TxCNTRL-kyCNTRL", "TxCNTRL-kyCNTRL?" + attributes},
		{" TxCNTRL-kyCNTRL\n", "TxCNTRL-kyCNTRL?" + attributes},
		{"TxCNTRL-kyCNTRL?preauthorized=false", "TxCNTRL-kyCNTRL?preauthorized=false&ephemeral=true"},
		{"TxCNTRL-kyCNTRL?" + attributes, "TxCNTRL-kyCNTRL?" + attributes},
	}
	for _, tt := range tests {
		if got, err := tailnet.ParseClientID(tt.given); got != tt.want || err != nil {
			t.Errorf("ParseClientID(%q) = %q, %v, want %q", tt.given, got, err, tt.want)
		}
	}
}

func TestParseCredentialsErrors(t *testing.T) {
	key := func(text string) error { _, err := tailnet.ParseKey(text); return err }
	id := func(text string) error { _, err := tailnet.ParseClientID(text); return err }
	tests := []struct {
		parse      func(string) error
		text, want string
	}{
		{key, "tskey-auth-hidden\ntskey-auth-hidden", "white space"},
		{key, "tskey-client-hidden ?ephemeral=true", "white space"},
		{key, "tskey-api-hidden", "API access token"},
		{key, "tskey-client-hidden?ephemeral=hidden", "neither true nor false"},
		{key, "tskey-client-hidden?preauthorized=", "neither true nor false"},
		{key, "tskey-client-hidden?%zz=hidden", "NAME=VALUE"},
		{id, "hidden hidden", "white space"},
		{id, "tskey-client-hidden", "the client id is a key"},
		{id, "?ephemeral=true", "empty"},
		{id, "Tx?ephemeral=hidden", "neither true nor false"},
	}
	for _, tt := range tests {
		err := tt.parse(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: the error shows it: %v", tt.text, err)
		}
	}
}
