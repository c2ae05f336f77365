package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// A kind is a way to be a nuisance. It returns when ctx ends or it has done enough.
type kind func(ctx context.Context, f *flood)

// kinds are all, by name.
func kinds() map[string]kind {
	return map[string]kind{
		"same":    sameInstance,
		"new":     newInstances,
		"offers":  otherOffers,
		"polls":   polls,
		"reads":   reads,
		"lost":    nowhere,
		"conns":   connections,
		"heads":   slowHeads,
		"bodies":  slowBodies,
		"halves":  halfRequests,
		"huge":    hugeHeads,
		"garbage": garbage,
	}
}

// A flood is what its kinds share.
type flood struct {
	at, cluster, name string
	instance          uuid.UUID

	mu     sync.Mutex // guards result
	result result
}

// A result is what came of it.
type result struct {
	Sent    int            `json:"sent"`    // requests, or connections where it is about those
	Answers map[string]int `json:"answers"` // by status; "none": the connection ended
	Seconds float64        `json:"seconds"`
}

// came counts what was sent once and the answer's status, 0 for none.
func (f *flood) came(status int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result.Sent++
	what := "none"
	if status != 0 {
		what = strconv.Itoa(status)
	}
	f.result.Answers[what]++
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	f := &flood{instance: uuid.New(), result: result{Answers: map[string]int{}}}
	fs := flag.NewFlagSet("flood", flag.ContinueOnError)
	fs.StringVar(&f.at, "at", "", "`ADDRESS:PORT` of the API")
	fs.StringVar(&f.cluster, "cluster", "", "`ID` of the cluster")
	fs.StringVar(&f.name, "name", "", "`NAME` of the builder that this node is")
	last := fs.Duration("for", 3*time.Second, "how long")
	if err := fs.Parse(args); err != nil {
		return err
	}
	all := kinds()
	if f.at == "" || f.cluster == "" || f.name == "" || fs.NArg() == 0 {
		return errors.New("want -at, -cluster, -name and a kind")
	}
	ctx, cancel := context.WithTimeout(context.Background(), *last)
	defer cancel()
	began := time.Now()
	var running sync.WaitGroup
	for _, name := range fs.Args() {
		do, ok := all[name]
		if !ok {
			return fmt.Errorf("kind %q: want one of %s", name, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
		}
		running.Go(func() { do(ctx, f) })
	}
	running.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result.Seconds = time.Since(began).Seconds()
	return json.NewEncoder(out).Encode(f.result)
}

// crowd runs do in many goroutines, each with its number, again and again until ctx ends or
// it was done most times in all.
func crowd(ctx context.Context, workers, most int, do func(ctx context.Context, worker int)) {
	left := make(chan struct{}, most)
	for range most {
		left <- struct{}{}
	}
	close(left)
	var running sync.WaitGroup
	for i := range workers {
		running.Go(func() {
			for range left {
				if ctx.Err() != nil {
					return
				}
				do(ctx, i)
			}
		})
	}
	running.Wait()
}
