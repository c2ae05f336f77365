package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/Misaka13514/setup-distributed-nix-builds/e2e/testbed"
)

// receiver is somebody's server for webhooks: it checks signatures as Standard Webhooks
// says, refuses its first request, and prints each event that it takes.
const receiver = `
const { createServer } = require("http");
const { createHmac } = require("crypto");
const key = Buffer.from(process.argv[2].slice("whsec_".length), "base64");
let refused = false;
createServer((req, res) => {
  let body = "";
  req.on("data", (part) => (body += part));
  req.on("end", () => {
    if (!refused) {
      refused = true;
      res.writeHead(503).end();
      return;
    }
    const signed = req.headers["webhook-id"] + "." + req.headers["webhook-timestamp"] + "." + body;
    const want = "v1," + createHmac("sha256", key).update(signed).digest("base64");
    const valid = req.headers["webhook-signature"].split(" ").includes(want);
    const age = Math.abs(Date.now() / 1000 - Number(req.headers["webhook-timestamp"]));
    console.log(JSON.stringify({ valid: valid && age < 60, ...JSON.parse(body) }));
    res.writeHead(204).end();
  });
}).listen(9009, "127.0.0.1", () => console.log("listening"));
`

// Whoever gave a URL and a secret hears of all that happens to the cluster, signed, also
// of what it refused the first time.
func TestWebhooks(t *testing.T) {
	lab := startLab(t, testbed.Config{Builders: 1})
	c := newCluster(t, lab, "hooks", 1)
	h := lab.Host(testbed.Coordinator)
	const secret = "whsec_bmljZS1rZXktb2YtYXQtbGVhc3QtMjQtYnl0ZXM="
	for name, text := range map[string]string{"/opt/receiver.cjs": receiver, "/run/webhook-secret": secret + "\n"} {
		if err := h.WriteFile(within(t, patience), name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	server := c.start(testbed.Root, "node", "/opt/receiver.cjs", secret)
	eventually(t, "a receiver that listens", func() bool { return strings.Contains(server.Output(), "listening") })
	c.Env["NIX_BUILDERS_WEBHOOK_URL"] = "http://127.0.0.1:9009/events"
	c.Env["NIX_BUILDERS_WEBHOOK_SECRET_FILE"] = "/run/webhook-secret"

	c.up()
	c.stop()
	c.wantReleased()
	want := map[int64]string{
		1: "builder.joined", 2: "builder.ready", 3: "cluster.ready",
		4: "cluster.stopping", 5: "builder.departed", 6: "cluster.stopped",
	}
	got := map[int64]string{}
	eventually(t, fmt.Sprintf("%d events there", len(want)), func() bool {
		clear(got)
		for line := range strings.Lines(server.Output()) {
			var e struct {
				Valid bool   `json:"valid"`
				Type  string `json:"type"`
				Data  struct {
					Number  int64  `json:"number"`
					Cluster string `json:"cluster"`
				} `json:"data"`
			}
			if json.Unmarshal([]byte(line), &e) == nil && e.Valid && e.Data.Cluster == c.Cluster() {
				got[e.Data.Number] = e.Type
			}
		}
		return len(got) >= len(want)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s\nthe receiver printed:\n%s", diff, server.Output())
	}
	if log := c.leave(); strings.Contains(log, secret) {
		t.Errorf("the log has the secret:\n%s", log)
	}
	_ = server.Signal(15) // its end is the lab's affair
}
