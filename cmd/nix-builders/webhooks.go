package main

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/webhook"
)

// webhooks returns the sender that the settings ask for; nil if none.
func (a *app) webhooks() (*webhook.Sender, error) {
	c := a.set.Coordinator
	if c.WebhookURL == "" {
		return nil, nil
	}
	secret, err := reveal(c.WebhookSecret, c.WebhookSecretFile)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	sender, err := webhook.New(webhook.Config{URL: c.WebhookURL, Secret: string(secret), Log: a.log, Drain: lastWords})
	if err != nil {
		// The same at every start: the supervisor must not try again.
		return nil, &usageError{fmt.Errorf("%w (NIX_BUILDERS_WEBHOOK_URL, NIX_BUILDERS_WEBHOOK_SECRET)", err)}
	}
	return sender, nil
}

// collectors of a sender that may be nil.
func collectors(sender *webhook.Sender) []prometheus.Collector {
	if sender == nil {
		return nil
	}
	return []prometheus.Collector{sender}
}
