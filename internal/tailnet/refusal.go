package tailnet

import "regexp"

// A refusal is something that `tailscale up` writes when trying again can't help.
type refusal struct {
	text *regexp.Regexp
	err  error
	hint string // what to do; if empty, what tokenRefused says
}

const hintNoKey = "no key was given and this host is not logged in: configure an auth key, the secret of an OAuth client, or the client id of a federated identity"

// refusals are in the order in which they are looked for. Sources: cmd/tailscale/cli/up.go,
// feature/oauthkey and feature/identityfederation of Tailscale, and the answers of the
// control server and of its API. What the API answers when it is overloaded or broken,
// 429 and 5xx, is not among them.
var refusals = []refusal{
	{
		text: regexp.MustCompile(`(?i)requested tags`), err: ErrTagsRefused,
		hint: "the policy's tagOwners must name each tag and let the key's owner use it; an OAuth client or federated identity must have exactly these tags, or tags that own them: let each tag own itself",
	},
	{
		text: regexp.MustCompile(`(?i)authkeys require --advertise-tags`), err: ErrTagsRefused,
		hint: "nodes that join with an OAuth client or a federated identity need a tag: configure one",
	},
	{
		text: regexp.MustCompile(`(?i)to approve your machine`), err: ErrNeedsApproval,
		hint: "use a pre-approved key, or set preauthorized=true in the OAuth client's secret or the client id",
	},
	{
		text: regexp.MustCompile(`(?i)to authenticate, visit`), err: ErrKeyRefused,
		hint: hintNoKey,
	},
	{
		text: regexp.MustCompile(`(?i)does not have enough permissions|user does not have access to this operation`), err: ErrKeyRefused,
		hint: "the OAuth client or federated identity needs the scope auth_keys, with write access",
	},
	{
		text: regexp.MustCompile(`(?i)token exchange failed with status 404`), err: ErrKeyRefused,
		hint: "the login server does not offer workload identity: use an auth key there",
	},
	{
		text: regexp.MustCompile(`(?i)token exchange failed with status 40[013]`), err: ErrKeyRefused,
	},
	{
		text: regexp.MustCompile(`(?i)oauth2: cannot fetch token: 40[0134]|oauth2: "|api token invalid`), err: ErrKeyRefused,
		hint: "there is no OAuth client with this secret: it may have been revoked, or belong to another tailnet or login server",
	},
	{
		text: regexp.MustCompile(`(?i)unknown (optional config )?attribute|invalid attribute`), err: ErrKeyRefused,
		hint: "take out what follows the question mark, but for ephemeral and preauthorized",
	},
	{
		text: regexp.MustCompile(`(?i)invalid key|unable to validate api key`), err: ErrKeyRefused,
		hint: "it may have expired, been revoked or been used up, or belong to another tailnet or login server; auth keys begin with tskey-auth-, secrets of OAuth clients with " + oauthSecret,
	},
	{
		text: regexp.MustCompile(`(?i)flag provided but not defined`), err: ErrTooOld,
		hint: "install a newer one; workload identity needs 1.90.1",
	},
	{
		text: regexp.MustCompile(`(?i)access denied`), err: ErrNotAllowed,
		hint: "run this as root, or as tailscale's operator",
	},
}

// refused returns the first refusal in what `tailscale up` wrote, nil if there is none.
func refused(text string) *refusal {
	for i := range refusals {
		if refusals[i].text.MatchString(text) {
			return &refusals[i]
		}
	}
	return nil
}
