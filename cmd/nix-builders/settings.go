package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// prefix is what every variable of ours begins with.
const prefix = "NIX_BUILDERS"

// settings is everything the environment says, read once and checked before anything
// is touched. A variable that is set but empty counts as unset, since that is how an
// action's unset inputs arrive.
type settings struct {
	Cluster     clusterSettings
	Tailnet     tailnetSettings
	Coordinator coordinatorSettings
	Builder     builderSettings
	Files       fileSettings
	Log         logSettings
}

type clusterSettings struct {
	Cluster        string  `split_words:"true" desc:"Cluster id. On GitHub: REPOSITORY/RUN_ID/RUN_ATTEMPT."`
	API            string  `split_words:"true" desc:"Base URL of the coordinator's API, for stop and status. On the coordinator's host it is found without."`
	Port           uint16  `split_words:"true" default:"8378" desc:"Port of the API on the coordinator's tailnet address; the same for the whole cluster."`
	Lease          seconds `split_words:"true" default:"45s" desc:"Silence after which coordinator and builder take each other for lost (3 s to 1 h)."`
	BuilderTag     string  `split_words:"true" default:"tag:nix-ci-builder" desc:"Tailnet tag of builders."`
	CoordinatorTag string  `split_words:"true" default:"tag:nix-ci-coordinator" desc:"Tailnet tag of coordinators."`
	MaxJobs        int     `split_words:"true" default:"0" desc:"Builds at a time (up to 4096). On a builder its own; on the coordinator that of builders that name none. 0: one a core, as far as 2 GiB of memory each allow."`
	SpeedFactor    int     `split_words:"true" default:"0" desc:"How fast a builder is beside the others, as Nix's machines file has it (up to 1000). On a builder its own; on the coordinator that of builders that name none. 0: 1."`
}

type tailnetSettings struct {
	Hostname        string  `split_words:"true" desc:"Host name on the tailnet. A builder is expected under this name."`
	Tags            words   `split_words:"true" desc:"Tags to advertise, separated by spaces. Default: the tag of the role."`
	AuthKey         secret  `split_words:"true" desc:"Tailscale auth key or OAuth client secret. Better: NIX_BUILDERS_AUTH_KEY_FILE."`
	AuthKeyFile     string  `split_words:"true" desc:"File that holds the auth key or OAuth client secret."`
	ClientID        string  `split_words:"true" desc:"Id of a federated identity on the tailnet, to log in with the identity token of the GitHub job instead of a key. The job needs permissions: id-token: write."`
	Audience        string  `split_words:"true" desc:"Audience of that token. Default: api.tailscale.com/ and the client id."`
	LoginServer     string  `split_words:"true" desc:"Control server, if not Tailscale's own."`
	Networking      choice  `split_words:"true" default:"auto" desc:"How tailscaled reaches the network: auto, tun or userspace. auto: userspace on macOS, where it leaves DNS alone, tun elsewhere."`
	TailscaleSocket string  `split_words:"true" desc:"Socket of tailscaled. Default: the system's."`
	Tailscale       string  `split_words:"true" default:"tailscale" desc:"The tailscale program."`
	Tailscaled      string  `split_words:"true" default:"tailscaled" desc:"The tailscaled program, started where none runs."`
	JoinTimeout     seconds `split_words:"true" default:"90s" desc:"How long joining the tailnet may take (5 s to 10 min)."`
	TailscaledLogs  bool    `split_words:"true" default:"true" desc:"Whether a tailscaled that is started here may send its logs to Tailscale."`
}

type coordinatorSettings struct {
	Builders          words   `split_words:"true" desc:"Host names of the builders to wait for, separated by white space. Needed by the coordinator."`
	MinBuilders       minimum `split_words:"true" default:"0" desc:"How many must be ready before builds start: a number, numbers for Nix systems, or both, such as 4, aarch64-darwin: 1. 0: all."`
	Cordon            bool    `split_words:"true" default:"true" desc:"Whether a builder that is short of disk (10 % of /nix) or memory gets no new builds until it has room again, while others can build what it builds."`
	Transport         choice  `split_words:"true" default:"auto" desc:"How Nix reaches the builders: direct (over the tailnet alone), ssh (over Tailscale SSH) or auto. auto: direct where the tailnet's policy allows it, else ssh."`
	BuildHook         bool    `split_words:"true" default:"true" desc:"Whether builds are dispatched by the cluster's own build hook, which moves those of a builder that is lost to another, or by Nix's."`
	SharePaths        bool    `split_words:"true" default:"true" desc:"Whether builders take what they need from each other, so that it leaves the coordinator once."`
	GatherTimeout     seconds `split_words:"true" desc:"How long the coordinator waits for its builders (1 s to 7 h). Default: 60 s longer than a builder waits to be claimed, see NIX_BUILDERS_BUILDER_TIMEOUT."`
	WebhookURL        string  `split_words:"true" desc:"Receiver of the cluster's events, sent as signed webhooks (Standard Webhooks)."`
	WebhookSecret     secret  `split_words:"true" desc:"Secret that signs them, whsec_... Better: NIX_BUILDERS_WEBHOOK_SECRET_FILE."`
	WebhookSecretFile string  `split_words:"true" desc:"File that holds the webhook secret."`
}

type builderSettings struct {
	BuilderTimeout seconds `split_words:"true" default:"300s" desc:"How long a builder waits to be claimed. A number is seconds (1 s to 6 h)."`
	StorePort      uint16  `split_words:"true" default:"8379" desc:"Port of the builder's tailnet address at which it serves its store to its coordinator."`
	Coordinator    string  `split_words:"true" desc:"The coordinator's tailnet name or address. Without it the builder asks every peer with the coordinator's tag."`
}

type fileSettings struct {
	StateDir       string `split_words:"true" desc:"Where running clusters keep their state. Default: /run/nix-builders (macOS: /var/run/nix-builders)."`
	MachinesFile   string `split_words:"true" default:"/etc/nix/machines" desc:"Nix's file of remote machines."`
	NixConf        string `split_words:"true" default:"/etc/nix/nix.conf" desc:"Nix's configuration."`
	ExtraNixConfig string `split_words:"true" desc:"Lines to append to Nix's configuration on this host, until nix-builders leave."`
	UserNixConf    string `split_words:"true" desc:"Nix's configuration of the user that the Nix daemon runs as, where the build hook is set. Default: root's, ~/.config/nix/nix.conf."`
	SSHConfig      string `split_words:"true" desc:"The SSH client configuration of the user that the Nix daemon runs as. Default: root's."`
	HostsFile      string `split_words:"true" default:"/etc/hosts" desc:"File where the coordinator writes its builders' names and addresses."`
	BinDir         string `split_words:"true" default:"/usr/local/bin" desc:"Directory on PATH where the coordinator installs stop-nix-builders."`
}

type logSettings struct {
	LogFormat choice `split_words:"true" default:"text" desc:"text or json."`
	LogLevel  choice `split_words:"true" default:"info" desc:"debug, info, warn or error."`
}

// A section is a part of the settings under the heading that --help gives it.
type section struct {
	title string
	spec  any
}

func (s *settings) sections() []section {
	return []section{
		{"Cluster", &s.Cluster},
		{"Tailnet", &s.Tailnet},
		{"Coordinator", &s.Coordinator},
		{"Builder", &s.Builder},
		{"Files", &s.Files},
		{"Log", &s.Log},
	}
}

// loadSettings reads and checks the environment. Its error names every variable that
// is wrong, and never holds a secret.
func loadSettings() (*settings, error) {
	s := new(settings)
	if err := s.checkNames(); err != nil {
		return nil, err
	}
	var problems []error
	for _, sec := range s.sections() {
		// Process ends at the first variable it can't read: set that aside and go on, so
		// that one run of the program tells them all.
		for {
			err := envconfig.Process(prefix, sec.spec)
			parse := (*envconfig.ParseError)(nil)
			if !errors.As(err, &parse) {
				problems = append(problems, err)
				break
			}
			problems = append(problems, fmt.Errorf("%s: %q is not valid: %w", parse.KeyName, clip(parse.Value), reason(parse)))
			if err := os.Unsetenv(parse.KeyName); err != nil {
				return nil, fmt.Errorf("unset %s: %w", parse.KeyName, err)
			}
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	s.setDefaults()
	return s, s.check()
}

// checkNames drops variables that are set but empty, and refuses those that no
// setting has: a misspelt name must not be taken for the default.
func (s *settings) checkNames() error {
	known := s.names()
	var problems []error
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		switch {
		case !strings.HasPrefix(name, prefix+"_"):
		case strings.TrimSpace(value) == "":
			if err := os.Unsetenv(name); err != nil {
				return fmt.Errorf("unset %s: %w", name, err)
			}
		case !slices.Contains(known, name):
			problems = append(problems, fmt.Errorf("%s: there is no such setting; nix-builders --help lists them all", name))
		}
	}
	return errors.Join(problems...)
}

// names are the variables of all settings.
func (s *settings) names() []string {
	var names []string
	for _, sec := range s.sections() {
		var list strings.Builder
		// The template is constant and the writer can't fail.
		_ = envconfig.Usagef(prefix, sec.spec, &list, "{{range .}}{{usage_key .}} {{end}}")
		names = append(names, strings.Fields(list.String())...)
	}
	return names
}

func (s *settings) setDefaults() {
	if s.Cluster.Cluster == "" {
		repo, run, attempt := os.Getenv("GITHUB_REPOSITORY"), os.Getenv("GITHUB_RUN_ID"), os.Getenv("GITHUB_RUN_ATTEMPT")
		if repo != "" && run != "" && attempt != "" {
			s.Cluster.Cluster = repo + "/" + run + "/" + attempt
		}
	}
	if s.Coordinator.GatherTimeout == 0 {
		s.Coordinator.GatherTimeout = s.Builder.BuilderTimeout + seconds(gatherSlack)
	}
	if s.Tailnet.Networking == "auto" {
		s.Tailnet.Networking = defaultNetworking
	}
	if s.Files.StateDir == "" {
		s.Files.StateDir = defaultStateDir
	}
	if s.Files.UserNixConf == "" {
		s.Files.UserNixConf = filepath.Join(rootHome, ".config", "nix", "nix.conf")
	}
	if s.Files.SSHConfig == "" {
		s.Files.SSHConfig = filepath.Join(rootHome, ".ssh", "config")
	}
}
