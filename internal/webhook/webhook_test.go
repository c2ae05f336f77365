package webhook_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/coordinator"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/webhook"
)

func TestEventsOfAClusterArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster, err := coordinator.New(coordinator.Config{ID: "owner/repo/1/1", Builders: []string{"b1"}})
		if err != nil {
			t.Fatal(err)
		}
		r := newReceiver(t, nil)
		sender := newSender(t, r)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- sender.Run(ctx, cluster.Follow(0, 64)) }()
		if _, err := cluster.Stop(t.Context(), coordinator.StopRequest{By: "a test"}); err != nil {
			t.Fatal(err)
		}
		cancel() // what the cluster said before goes out all the same
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if diff := cmp.Diff([]int64{1, 2}, r.numbers()); diff != "" {
			t.Errorf("events that arrived (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]float64{"delivered": 2, "repeated": 0, "failed": 0, "dropped": 0}, counts(t, sender)); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
	})
}

func TestFailuresAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, func(n int, w http.ResponseWriter) {
			switch n {
			case 1:
				w.WriteHeader(http.StatusInternalServerError)
			case 2:
				w.Header().Set("Location", "http://elsewhere.test/")
				w.WriteHeader(http.StatusTemporaryRedirect) // not followed
			case 3:
				w.WriteHeader(http.StatusNotFound)
			default:
				w.WriteHeader(http.StatusOK)
				_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<20)) // not read to its end
			}
		})
		sender, src := newSender(t, r, func(cfg *webhook.Config) { cfg.Drain = time.Minute }), newSource(2)
		src.events <- event(1)
		src.events <- event(2)
		close(src.events)
		if err := sender.Run(t.Context(), src); err != nil {
			t.Errorf("Run: %v", err)
		}
		if !src.closed {
			t.Error("the source is not closed")
		}
		tries := r.all()
		if diff := cmp.Diff([]int64{1, 1, 1, 1, 2}, r.numbers()); diff != "" {
			t.Fatalf("tries (-want +got):\n%s", diff)
		}
		for i, g := range tries[:4] {
			if g.ID != tries[0].ID || !strings.HasPrefix(g.ID, "evt_") {
				t.Errorf("id of try %d is %q, of the first %q", i+1, g.ID, tries[0].ID)
			}
			if i > 0 && g.After-tries[i-1].After < 200*time.Millisecond {
				t.Errorf("between tries %d and %d are %v", i, i+1, g.After-tries[i-1].After)
			}
		}
		if tries[4].ID == tries[0].ID {
			t.Error("two events have one id")
		}
		if diff := cmp.Diff(map[string]float64{"delivered": 2, "repeated": 3, "failed": 0, "dropped": 0}, counts(t, sender)); diff != "" {
			t.Errorf("counts (-want +got):\n%s", diff)
		}
	})
}

func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, func(n int, w http.ResponseWriter) {
			if n <= 8 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		})
		sender, src := newSender(t, r), newSource(2)
		src.events <- event(1)
		src.events <- event(2)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- sender.Run(ctx, src) }()
		time.Sleep(5 * time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if diff := cmp.Diff([]int64{1, 1, 1, 1, 1, 1, 1, 1, 2}, r.numbers()); diff != "" {
			t.Errorf("tries (-want +got):\n%s", diff)
		}
		if got := counts(t, sender); got["failed"] != 1 || got["delivered"] != 1 {
			t.Errorf("counts: %v", got)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		header string
		least  time.Duration
		most   time.Duration
	}{
		{"7", 7 * time.Second, 7 * time.Second},
		{"date", 20 * time.Second, 20 * time.Second},
		{"86400", time.Minute, time.Minute},
		{"-5", 500 * time.Millisecond, 500 * time.Millisecond},
		{"soon", 200 * time.Millisecond, 800 * time.Millisecond},
	} {
		t.Run(test.header, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newReceiver(t, func(n int, w http.ResponseWriter) {
					if n > 1 {
						return
					}
					header := test.header
					if header == "date" {
						header = time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)
					}
					w.Header().Set("Retry-After", header)
					w.WriteHeader(http.StatusTooManyRequests)
				})
				sender, src := newSender(t, r, func(cfg *webhook.Config) { cfg.Drain = time.Hour }), newSource(1)
				src.events <- event(1)
				close(src.events)
				if err := sender.Run(t.Context(), src); err != nil {
					t.Errorf("Run: %v", err)
				}
				tries := r.all()
				if len(tries) != 2 || tries[1].After < test.least || tries[1].After > test.most {
					t.Errorf("tries %+v, want the second after %v to %v", tries, test.least, test.most)
				}
			})
		})
	}
}

// A receiver that hangs costs it the oldest events, and the cluster nothing.
func TestDeadReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		r := newReceiver(t, func(int, http.ResponseWriter) { <-hang })
		defer close(hang)
		var log bytes.Buffer
		sender := newSender(t, r, func(cfg *webhook.Config) {
			cfg.Queue, cfg.Tries = 10, 1
			cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
		src := newSource(0)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- sender.Run(ctx, src) }()
		start := time.Now()
		for i := range 100 {
			src.events <- event(int64(i + 1))
			synctest.Wait()
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("100 events took the cluster %v", took)
		}
		if got := counts(t, sender); got["dropped"] != 89 { // 1 is tried, 10 wait
			t.Errorf("counts: %v", got)
		}
		time.Sleep(15 * time.Second) // a try lasts 10 s: two have been given up or begun
		cancel()
		start = time.Now()
		err := <-done
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("the end took %v", took)
		}
		if err == nil || !strings.Contains(err.Error(), "http://receiver.test") {
			t.Errorf("Run: %v", err)
		}
		if diff := cmp.Diff([]int64{1, 91}, r.numbers()); diff != "" {
			t.Errorf("tries (-want +got):\n%s", diff)
		}
		for _, s := range []string{"sesame", "pass", "user", secret[len(webhook.SecretPrefix):]} {
			if strings.Contains(log.String()+err.Error(), s) {
				t.Errorf("%q is in the log or the error:\n%s%v", s, &log, err)
			}
		}
	})
}

func TestSourceThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(t, nil)
		src := newSource(1)
		src.err = coordinator.ErrSlow
		close(src.events)
		if err := newSender(t, r).Run(t.Context(), src); !errors.Is(err, coordinator.ErrSlow) {
			t.Errorf("Run: %v", err)
		}
	})
}

// Over real sockets, with nobody there: errors don't give the URL away.
func TestNobodyListens(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	url := server.URL
	server.Close()
	var log bytes.Buffer
	sender, err := webhook.New(webhook.Config{URL: url + "/sesame", Secret: secret, Tries: 1,
		Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	src := newSource(1)
	src.events <- event(1)
	close(src.events)
	if err := sender.Run(t.Context(), src); err != nil {
		t.Errorf("Run: %v", err)
	}
	if counts(t, sender)["failed"] != 1 || strings.Contains(log.String(), "sesame") || !strings.Contains(log.String(), url) {
		t.Errorf("counts %v, log\n%s", counts(t, sender), &log)
	}
}

func TestBadConfig(t *testing.T) {
	raw := func(n int) string {
		return webhook.SecretPrefix + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), n))
	}
	for _, test := range []struct{ url, secret, want string }{
		{"ftp://sesame.test/", secret, "webhook URL"},
		{"//sesame.test/", secret, "webhook URL"},
		{"http:///sesame", secret, "webhook URL"},
		{"sesame", secret, "webhook URL"},
		{"http://sesame\x7f/", secret, "webhook URL"},
		{"", secret, "webhook URL"},
		{"https://r.test/", "", "webhook secret"},
		{"https://r.test/", "sesame", "webhook secret"},
		{"https://r.test/", "whsec_", "has 0 bytes"},
		{"https://r.test/", "whsec_sesame!", "not base64"},
		{"https://r.test/", raw(23), "has 23 bytes"},
		{"https://r.test/", raw(65), "has 65 bytes"},
		{"https://r.test/", raw(24), ""},
		{"http://r.test/", raw(64), ""},
	} {
		_, err := webhook.New(webhook.Config{URL: test.url, Secret: test.secret})
		switch {
		case test.want == "" && err == nil:
		case err == nil || test.want == "" || !strings.Contains(err.Error(), test.want):
			t.Errorf("New(%q, %q): %v, want %q", test.url, test.secret, err, test.want)
		case strings.Contains(fmt.Sprint(err), "sesame"):
			t.Errorf("the error gives away what it was given: %v", err)
		}
	}
}
