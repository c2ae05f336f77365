package webhook

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
)

const (
	// SecretPrefix is what every secret begins with.
	SecretPrefix = "whsec_"

	// A secret's length in bytes, as Standard Webhooks has it.
	minSecret, maxSecret = 24, 64
)

// Config is what a Sender is made from.
type Config struct {
	URL    string // http or https; where events are POSTed
	Secret string // "whsec_" and the base64 of 24 to 64 bytes

	Transport http.RoundTripper // if nil, one of the Sender's own
	Log       *slog.Logger      // if nil, nothing is logged

	Queue   int           // events that may wait; if zero, 256
	Tries   int           // of each event; if zero, 8, which takes some 2 minutes
	Timeout time.Duration // of each try; if zero, 10 s
	Drain   time.Duration // for what is queued when Run's context ends; if zero, 5 s
}

// Source is where events come from: a subscription to a cluster.
type Source interface {
	C() <-chan coordinator.Event // closed at the end
	Err() error                  // why it ended
	Close()
}

// Sender sends events to one receiver. It is a prometheus.Collector of what became of them.
type Sender struct {
	url    string
	where  string // scheme and host, for people
	signer *standardwebhooks.Webhook
	client *http.Client
	log    *slog.Logger
	tries  int
	drain  time.Duration
	queue  *queue

	deliveries *prometheus.CounterVec
	queued     prometheus.GaugeFunc
}

// New returns a sender. Its error says what is wrong with the URL or the secret, without
// giving away either.
func New(cfg Config) (*Sender, error) {
	target, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, errors.New("webhook URL: it can't be parsed; want https://HOST/PATH")
	case (target.Scheme != "http" && target.Scheme != "https") || target.Host == "":
		return nil, errors.New("webhook URL: want https://HOST/PATH or http://HOST/PATH")
	}
	key, err := secretKey(cfg.Secret)
	if err != nil {
		return nil, err
	}
	signer, err := standardwebhooks.NewWebhookRaw(key)
	if err != nil {
		return nil, errors.New("webhook secret: it can't be used to sign")
	}
	transport := cfg.Transport
	if transport == nil {
		own := http.DefaultTransport.(*http.Transport).Clone()
		own.MaxIdleConns, own.MaxConnsPerHost = 1, 1
		own.MaxResponseHeaderBytes = 64 << 10
		transport = own
	}
	s := &Sender{
		url:    cfg.URL,
		where:  target.Scheme + "://" + target.Host,
		signer: signer,
		client: &http.Client{
			Transport:     transport,
			Timeout:       cmp.Or(cfg.Timeout, 10*time.Second),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		log:   cfg.Log,
		tries: cmp.Or(cfg.Tries, 8),
		drain: cmp.Or(cfg.Drain, 5*time.Second),
		queue: newQueue(cmp.Or(cfg.Queue, 256)),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nix_builders_webhook_deliveries_total",
			Help: "Events by what became of them: delivered, failed, dropped; and tries that are repeated.",
		}, []string{"outcome"}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.log = s.log.With("webhook", s.where)
	for _, o := range []outcome{delivered, repeated, failed, dropped} {
		s.deliveries.WithLabelValues(string(o))
	}
	s.queued = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "nix_builders_webhook_queue_length",
		Help: "Events that wait to be sent.",
	}, func() float64 { return float64(s.queue.len()) })
	return s, nil
}

// secretKey returns the key that secret stands for.
func secretKey(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, SecretPrefix)
	if !ok {
		return nil, fmt.Errorf("webhook secret: want %sBASE64", SecretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("webhook secret: what follows %s is not base64", SecretPrefix)
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return nil, fmt.Errorf("webhook secret: it has %d bytes; want %d to %d, such as `openssl rand -base64 32` gives",
			len(key), minSecret, maxSecret)
	}
	return key, nil
}

// Describe implements prometheus.Collector.
func (s *Sender) Describe(out chan<- *prometheus.Desc) {
	s.deliveries.Describe(out)
	s.queued.Describe(out)
}

// Collect implements prometheus.Collector.
func (s *Sender) Collect(out chan<- prometheus.Metric) {
	s.deliveries.Collect(out)
	s.queued.Collect(out)
}

// Run sends what source brings until the source or ctx ends, and closes the source. What is
// queued by then still goes out, within Config.Drain. Events that did not are the error.
// Run is to be called once.
func (s *Sender) Run(ctx context.Context, source Source) error {
	defer source.Close()
	defer s.client.CloseIdleConnections()

	// sending outlives ctx by the time to drain.
	sending, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for {
			e, ok := s.queue.next()
			if !ok || sending.Err() != nil {
				return
			}
			s.deliver(sending, e)
		}
	}()

	ended := s.take(ctx, source)
	s.queue.close()
	timer := time.AfterFunc(s.drain, func() { stop(errors.New("the program ends")) })
	defer timer.Stop()
	<-sent
	if left := s.queue.len(); left > 0 {
		s.count(dropped, left)
		return errors.Join(ended, fmt.Errorf("send events to %s: %d were not sent before the end", s.where, left))
	}
	return ended
}

// take moves events from source to the queue until either end. When ctx ends, what source
// already holds is taken too.
func (s *Sender) take(ctx context.Context, source Source) error {
	put := func(e coordinator.Event) {
		if s.queue.put(e) {
			s.count(dropped, 1)
			s.log.Warn("drop the oldest event: the receiver does not keep up")
		}
	}
	for {
		select {
		case e, more := <-source.C():
			if !more {
				return source.Err()
			}
			put(e)
			continue
		default:
		}
		select {
		case e, more := <-source.C():
			if !more {
				return source.Err()
			}
			put(e)
		case <-ctx.Done():
			return nil
		}
	}
}
