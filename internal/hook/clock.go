package hook

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// The limits that the user sets for builds. Nix' own hook keeps them from no builder that it
// reaches by ssh-ng, which has no word for them.
type limits struct {
	derivation    string
	total, silent time.Duration // zero for none
}

// A clock measures a build against its limits: from when the builder can have begun with it
// until the outputs are copied.
type clock struct {
	limits
	uri     []byte
	runs    bool
	copying uint64 // activity of copying inputs; zero if there is none
	began   time.Time
	heard   time.Time // last sign of life
	timer   *time.Timer
}

// start begins to measure if limits are kept for builds in this store.
func (k *clock) start(l limits, uri []byte) {
	if bytes.HasPrefix(uri, []byte("ssh-ng://")) && (l.total > 0 || l.silent > 0) {
		k.limits, k.uri = l, uri
		k.begin()
	}
}

func (k *clock) begin() {
	k.runs = true
	k.began = time.Now()
	k.heard = k.began
	k.set()
}

// sign notes a sign of life.
func (k *clock) sign() { k.heard = time.Now() }

// activity notes what Nix' own hook does: the builder does not build while inputs or outputs
// are copied.
func (k *clock) activity(m message) {
	if k.uri == nil {
		return
	}
	switch {
	case m.Action == "stop" && m.ID == k.copying && m.ID != 0:
		k.copying = 0
		k.begin()
	case m.Action != "start":
	case strings.HasPrefix(m.Text, "copying dependencies to "), strings.HasPrefix(m.Text, "waiting for the upload lock to "):
		k.copying = m.ID
		k.stop()
	case strings.HasPrefix(m.Text, "copying outputs from "):
		k.stop()
	}
}

func (k *clock) stop() {
	k.runs = false
	if k.timer != nil {
		k.timer.Stop()
	}
}

// next is when a limit is reached, should nothing be heard until then, and what is to be said.
func (k *clock) next() (at time.Time, text string) {
	if k.total > 0 {
		at, text = k.began.Add(k.total), fmt.Sprintf("after %d seconds", k.total/time.Second)
	}
	if k.silent > 0 {
		if end := k.heard.Add(k.silent); text == "" || end.Before(at) {
			at, text = end, fmt.Sprintf("after %d seconds of silence", k.silent/time.Second)
		}
	}
	return at, fmt.Sprintf("building of '%s' timed out %s", k.derivation, text)
}

func (k *clock) set() {
	at, _ := k.next()
	k.timer = time.NewTimer(time.Until(at))
}

// ticks tells when to ask whether the time has expired; never if nothing is measured.
func (k *clock) ticks() <-chan time.Time {
	if !k.runs {
		return nil
	}
	return k.timer.C
}

// expired says what limit was reached; empty if none was.
func (k *clock) expired() string {
	at, text := k.next()
	if time.Now().Before(at) {
		k.set()
		return ""
	}
	k.stop()
	return text
}
