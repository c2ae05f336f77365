package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"tailscale.com/envknob"
	"tailscale.com/ipn/store/mem"
	"tailscale.com/net/netns"
	"tailscale.com/tsnet"
	"tailscale.com/types/logger"

	"github.com/Misaka13514/setup-distributed-nix-builds/builder"
	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/control"
	"github.com/Misaka13514/setup-distributed-nix-builds/httpapi"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/apiclient"
	"github.com/Misaka13514/setup-distributed-nix-builds/internal/tailnet"
)

// atOnce is how many nodes are brought up at a time: more would only wait for each other.
const atOnce = 8

// A line is one that crew prints.
type line struct {
	What   string        `json:"what"`             // "up", "all up", "ended"
	Name   string        `json:"name,omitempty"`   // of the builder
	At     time.Time     `json:"at"`               // when it happened
	Took   time.Duration `json:"took_ns"`          // how long the node took to be up, or all of them
	Failed string        `json:"failed,omitempty"` // why the agent ended, if that was not well
	Said   string        `json:"said,omitempty"`   // the last of what the agent told a person
}

// A crew is one run of the program.
type crew struct {
	login, cluster, name string
	from, to, port       int
	lease                time.Duration
	dir                  string // of the nodes' files

	mu  sync.Mutex // held while a line is written
	out *json.Encoder
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "crew:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	c := &crew{out: json.NewEncoder(out)}
	fs := flag.NewFlagSet("crew", flag.ContinueOnError)
	fs.StringVar(&c.login, "login-server", "", "`URL` of the control server")
	fs.StringVar(&c.cluster, "cluster", "", "`ID` of the cluster")
	fs.StringVar(&c.name, "name", "", "`FORMAT` of the builders' names")
	fs.IntVar(&c.from, "from", 1, "`NUMBER` of the first")
	fs.IntVar(&c.to, "to", 1, "`NUMBER` of the last")
	fs.IntVar(&c.port, "port", 8378, "`PORT` of coordinators")
	fs.DurationVar(&c.lease, "lease", 45*time.Second, "the cluster's lease")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if c.login == "" || c.cluster == "" || c.name == "" || c.to < c.from {
		return errors.New("want -login-server, -cluster, -name and numbers")
	}
	if c.dir, err = os.MkdirTemp("", "crew-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	netns.SetEnabled(false) // nothing on this host is to be kept out of a tunnel
	envknob.SetNoLogsNoSupport()

	nodes, err := c.bringUp(ctx)
	defer func() {
		var closing errgroup.Group
		for _, n := range nodes {
			if n != nil {
				closing.Go(n.Close)
			}
		}
		err = errors.Join(err, closing.Wait())
	}()
	if err != nil {
		return err
	}
	var agents errgroup.Group
	for i, n := range nodes {
		agents.Go(func() error { return c.serve(ctx, c.from+i, n) })
	}
	return agents.Wait()
}

// bringUp returns one node for each builder. On an error those that there are are returned.
func (c *crew) bringUp(ctx context.Context) ([]*tsnet.Server, error) {
	nodes := make([]*tsnet.Server, c.to-c.from+1)
	began := time.Now()
	up, ctx := errgroup.WithContext(ctx)
	up.SetLimit(atOnce)
	for i := range nodes {
		up.Go(func() error {
			name := fmt.Sprintf(c.name, c.from+i)
			start := time.Now()
			nodes[i] = &tsnet.Server{
				Dir: filepath.Join(c.dir, strconv.Itoa(i)), Store: new(mem.Store), Hostname: name,
				ControlURL: c.login, AuthKey: control.CIKey, AdvertiseTags: []string{httpapi.DefaultBuilderTag}, Ephemeral: true,
				Logf: logger.Discard, UserLogf: logger.Discard,
			}
			if _, err := nodes[i].Up(ctx); err != nil {
				return fmt.Errorf("bring up %s: %w", name, err)
			}
			c.say(line{What: "up", Name: name, Took: time.Since(start)})
			return nil
		})
	}
	err := up.Wait()
	if err == nil {
		c.say(line{What: "all up", Took: time.Since(began)})
	}
	return nodes, err
}

// serve is the life of one builder's agent.
func (c *crew) serve(ctx context.Context, number int, node *tsnet.Server) error {
	lc, err := node.LocalClient()
	if err != nil {
		return err
	}
	client := tailnet.FromLocal(lc)
	name := fmt.Sprintf(c.name, number)
	said := new(last)
	transport := client.Transport(c.lease)
	defer transport.CloseIdleConnections()
	agent, err := builder.New(builder.Config{
		Cluster: c.cluster, Name: name, Label: tailnet.SanitizeHostname, Transport: transport,
		Coordinators: func(ctx context.Context) ([]builder.Candidate, error) {
			peers, err := client.Peers(ctx)
			var found []builder.Candidate
			for _, p := range peers {
				if slices.Contains(p.Tags, httpapi.DefaultCoordinatorTag) {
					found = append(found, builder.Candidate{Name: p.Name,
						Base: "http://" + net.JoinHostPort(p.Addr.String(), strconv.Itoa(c.port)) + httpapi.Base})
				}
			}
			return found, err
		},
		Offer: func(context.Context) (apiclient.Offer, error) {
			return apiclient.Offer{
				Systems: []string{"x86_64-linux", "i686-linux"}, Cores: 4, MemoryBytes: 16 << 30, StoreFreeBytes: 100 << 30,
				Features: []string{"benchmark", "big-parallel", "kvm", "nixos-test"}, NixVersion: "2.34.8", StoreProgram: "/usr/bin/nix-daemon",
			}, nil
		},
		Vitals: func(context.Context) (apiclient.Vitals, error) {
			return apiclient.Vitals{CpuPercent: 12.5, MemoryFreeBytes: 8 << 30, StoreFreeBytes: 90 << 30}, nil
		},
		Out: said,
	})
	if err != nil {
		return err
	}
	ended := line{What: "ended", Name: name}
	if err := agent.Run(ctx); err != nil {
		ended.Failed = cmp.Or(err.Error(), "?")
	}
	ended.Said = said.String()
	c.say(ended)
	return nil
}

func (c *crew) say(l line) {
	l.At = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.out.Encode(l) // to a pipe whose reader may have gone
}

// last keeps the last line that was written.
type last struct {
	mu   sync.Mutex
	line string // guarded by mu
}

func (l *last) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = string(b)
	return len(b), nil
}

func (l *last) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.line
}
