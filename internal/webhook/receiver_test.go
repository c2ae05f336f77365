package webhook_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	contract "github.com/Misaka13514/setup-distributed-nix-builds"
	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/pipenet"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/webhook"
)

var secret = webhook.SecretPrefix + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32))

// source gives events to a Sender, as a subscription does.
type source struct {
	events chan coordinator.Event
	err    error
	closed bool
}

func newSource(buffer int) *source { return &source{events: make(chan coordinator.Event, buffer)} }

func (s *source) C() <-chan coordinator.Event { return s.events }
func (s *source) Err() error                  { return s.err }
func (s *source) Close()                      { s.closed = true }

func event(number int64) coordinator.Event {
	return coordinator.Event{
		Number: number, Type: coordinator.BuilderJoined, At: time.Now().UTC(), Cluster: "owner/repo/1/1",
		Builder: "b1", From: "expected", To: "joined", Reason: "checked in",
	}
}

// got is one try as the receiver saw it.
type got struct {
	ID     string
	Number int64
	After  time.Duration // since the receiver began
}

// receiver is a real HTTP server over an in-memory network.
type receiver struct {
	t       *testing.T
	net     *pipenet.Listener
	payload *openapi3.Schema                   // what the contract says of a body
	answer  func(n int, w http.ResponseWriter) // n counts tries from 1; nil: 204

	mu    sync.Mutex // guards what follows
	began time.Time
	tries []got
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter)) *receiver {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(contract.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, net: pipenet.Listen("192.0.2.1:443"), answer: answer, began: time.Now(),
		payload: doc.Components.Schemas["WebhookPayload"].Value}
	server := &http.Server{Handler: r}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(r.net)
	}()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender gave up
	}
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		r.t.Error(err)
		return
	}
	if err := verifier.Verify(body, req.Header); err != nil {
		r.t.Errorf("signature: %v", err)
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		r.t.Errorf("payload %s: %v", body, err)
	}
	if err := r.payload.VisitJSON(value); err != nil {
		r.t.Errorf("the payload is not as the contract has it: %v", err)
	}
	if kind := req.Header.Get("Content-Type"); req.Method != http.MethodPost || kind != "application/json" {
		r.t.Errorf("%s of %s", req.Method, kind)
	}
	var payload apiclient.WebhookPayload
	if err := json.Unmarshal(body, &payload); err != nil || string(payload.Type) != string(payload.Data.Type) {
		r.t.Errorf("payload %s: %v", body, err)
	}
	r.mu.Lock()
	r.tries = append(r.tries, got{req.Header.Get("webhook-id"), payload.Data.Number, time.Since(r.began)})
	n := len(r.tries)
	r.mu.Unlock()
	if r.answer != nil {
		r.answer(n, w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *receiver) all() []got {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]got(nil), r.tries...)
}

func (r *receiver) numbers() (all []int64) {
	for _, g := range r.all() {
		all = append(all, g.Number)
	}
	return all
}

func newSender(t *testing.T, r *receiver, options ...func(*webhook.Config)) *webhook.Sender {
	t.Helper()
	cfg := webhook.Config{URL: "http://user:pass@receiver.test/hook?token=sesame", Secret: secret,
		Transport: r.net.Transport(netip.MustParseAddr("192.0.2.2"))}
	for _, option := range options {
		option(&cfg)
	}
	sender, err := webhook.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return sender
}

// counts returns what became of the events, by the sender's own metrics.
func counts(t *testing.T, s *webhook.Sender) map[string]float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(s); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if c := m.GetCounter(); c != nil {
				all[m.GetLabel()[0].GetValue()] = c.GetValue()
			}
		}
	}
	return all
}
