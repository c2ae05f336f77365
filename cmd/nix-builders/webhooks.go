package main

import (
	"fmt"

	"github.com/google/renameio/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/rundir"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/scheduler"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/webhook"
)

// webhookSecretFile is where the detached server has the secret from.
const webhookSecretFile = "webhook-secret"

// keepWebhookSecret writes the secret, wherever it came from, for the server that outlives
// this process.
func (a *app) keepWebhookSecret(d *rundir.Dir) error {
	if a.secrets.WebhookSecret == "" {
		return nil
	}
	if err := renameio.WriteFile(d.Path(webhookSecretFile), []byte(a.secrets.WebhookSecret+"\n"), 0o600); err != nil {
		return fmt.Errorf("keep the webhook secret: %w", err)
	}
	a.set.Coordinator.WebhookSecretFile = d.Path(webhookSecretFile) // a server in this process reads it too
	return nil
}

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

// collectors are the metrics of a sender and a scheduler, each of which may be nil.
func collectors(sender *webhook.Sender, builds *scheduler.Scheduler) (all []prometheus.Collector) {
	if sender != nil {
		all = append(all, sender)
	}
	if builds != nil {
		all = append(all, schedulerCollector(builds))
	}
	return all
}
