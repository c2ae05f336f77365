package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
)

// A crowd is builders without hosts. Each has a loopback address of its own, by which
// whoIs tells who calls: what the tailnet says of real ones.
type crowd struct {
	cluster string // id
	prefix  string // of the builders' names
	size    int
}

func (c crowd) name(i int) string { return fmt.Sprintf("%s-%05d", c.prefix, i) }

func (c crowd) names() []string {
	names := make([]string, c.size)
	for i := range names {
		names[i] = c.name(i)
	}
	return names
}

// coordinatorAddr is where a coordinator listens, and where its own calls come from.
func coordinatorAddr() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }

// addr is where builder i calls from: 127.1.0.0 and up.
func (crowd) addr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)})
}

func (c crowd) whoIs(_ context.Context, remote string) (httpapi.Caller, error) {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return httpapi.Caller{}, err
	}
	a := from.Addr().As4()
	i := int(a[2])<<8 | int(a[3])
	switch {
	case from.Addr() == coordinatorAddr():
		return httpapi.Caller{ID: "n-coordinator", Name: "nix-coordinator-bench", Addr: from.Addr(),
			Tags: []string{httpapi.DefaultCoordinatorTag}, Self: true}, nil
	case a[1] == 1 && i < c.size:
		return httpapi.Caller{ID: fmt.Sprintf("n-%d", i), Name: c.name(i), FQDN: c.name(i) + ".bench.ts.net",
			Addr: from.Addr(), Tags: []string{httpapi.DefaultBuilderTag}}, nil
	}
	return httpapi.Caller{}, fmt.Errorf("nobody is at %s", remote)
}

// dial connects to the coordinator as builder i.
func (c crowd) dial(ctx context.Context, i int, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:   30 * time.Second,
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.addr(i), 0)),
	}
	return d.DialContext(ctx, "tcp", address)
}

// transport is HTTP as builder i.
func (c crowd) transport(i int) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return c.dial(ctx, i, address)
	}}
}

// offer is what a GitHub-hosted runner offers.
func offer() apiclient.Offer {
	return apiclient.Offer{
		Systems:        []string{"x86_64-linux", "i686-linux"},
		Cores:          4,
		MemoryBytes:    16 << 30,
		StoreFreeBytes: 100 << 30,
		Features:       []string{"benchmark", "big-parallel", "kvm", "nixos-test"},
		NixVersion:     "2.34.8",
		StoreProgram:   "/usr/bin/nix-daemon", // where the lab's hosts have it
		HostKeys:       &[]string{"ssh-ed25519 " + strings.Repeat("A", 68)},
	}
}

func vitals() apiclient.Vitals {
	return apiclient.Vitals{CpuPercent: 12.5, MemoryFreeBytes: 8 << 30, StoreFreeBytes: 90 << 30, Builds: 2}
}

func (c crowd) checkIn(i int) apiclient.CheckIn {
	v := vitals()
	return apiclient.CheckIn{Cluster: c.cluster, Name: c.name(i), Instance: uuid.New(), Offer: offer(), Vitals: &v}
}
