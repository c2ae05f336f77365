package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

const (
	// workers is how many requests are open at a time, as many as a node may have.
	workers = 64
	// mostRequests bounds one flood.
	mostRequests = 40_000
)

// sameInstance renews one check-in over and over.
func sameInstance(ctx context.Context, f *flood) {
	f.checkIns(ctx, func(int) (uuid.UUID, int) { return f.instance, 4 })
}

// newInstances checks in as one process after another.
func newInstances(ctx context.Context, f *flood) {
	f.checkIns(ctx, func(int) (uuid.UUID, int) { return uuid.New(), 4 })
}

// otherOffers renews one check-in, and each time offers something else, which has to be
// saved.
func otherOffers(ctx context.Context, f *flood) {
	f.checkIns(ctx, func(worker int) (uuid.UUID, int) { return f.instance, 1 + worker })
}

func (f *flood) checkIns(ctx context.Context, next func(worker int) (instance uuid.UUID, cores int)) {
	client := newClient()
	defer client.CloseIdleConnections()
	crowd(ctx, workers, mostRequests, func(ctx context.Context, worker int) {
		f.checkIn(ctx, client, next, worker)
	})
}

// checkIn returns the ticket's id if it got one.
func (f *flood) checkIn(ctx context.Context, client *http.Client, next func(int) (uuid.UUID, int), worker int) (id uuid.UUID) {
	instance, cores := next(worker)
	body, err := json.Marshal(apiclient.CheckIn{
		Cluster: f.cluster, Name: f.name, Instance: instance,
		Offer: apiclient.Offer{
			Systems: []string{"x86_64-linux"}, Cores: cores, MemoryBytes: 16 << 30, StoreFreeBytes: 1 << 30,
			Features: []string{}, NixVersion: "2.34.8", StoreProgram: "/usr/bin/nix-daemon",
		},
	})
	if err != nil {
		panic(err) // it is made of constants
	}
	var ticket apiclient.Ticket
	f.call(ctx, client, http.MethodPost, "/check-ins", body, &ticket)
	return ticket.Id
}

// polls asks again and again whether it may go, without waiting for an answer to change.
func polls(ctx context.Context, f *flood) {
	client := newClient()
	defer client.CloseIdleConnections()
	id := f.checkIn(ctx, client, func(int) (uuid.UUID, int) { return f.instance, 4 }, 0)
	crowd(ctx, workers, mostRequests, func(ctx context.Context, _ int) {
		f.call(ctx, client, http.MethodGet, "/builders/"+id.String()+"/teardown?wait=0", nil, nil)
	})
}

// reads reads the cluster.
func reads(ctx context.Context, f *flood) {
	client := newClient()
	defer client.CloseIdleConnections()
	crowd(ctx, workers, mostRequests, func(ctx context.Context, _ int) {
		f.call(ctx, client, http.MethodGet, "/cluster", nil, nil)
	})
}

// nowhere makes calls that there are not, and for which nobody is asked who calls.
func nowhere(ctx context.Context, f *flood) {
	client := newClient()
	defer client.CloseIdleConnections()
	crowd(ctx, workers, mostRequests, func(ctx context.Context, _ int) {
		f.call(ctx, client, http.MethodGet, "/nowhere", nil, nil)
	})
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers}}
}

// call makes one call and reads a good answer into v, if there is one.
func (f *flood) call(ctx context.Context, client *http.Client, method, path string, body []byte, v any) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+f.at+"/v1"+path, bytes.NewReader(body))
	if err != nil {
		panic(err) // the address was given by the test
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			f.came(0)
		}
		return
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	f.came(res.StatusCode)
	if v != nil && res.StatusCode < 300 {
		_ = json.Unmarshal(text, v)
	}
}
