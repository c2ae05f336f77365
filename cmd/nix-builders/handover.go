package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// handover is all that the process behind the front gets from it: sudo is given no
// environment and no argument to keep.
type handover struct {
	Env     map[string]string `json:"env"`
	Secrets secrets           `json:"secrets"`
}

// acknowledged is the line that answers a handover.
const acknowledged = "ok\n"

// carried are the variables beside our settings that go to root's process. Not among
// them: HOME, which sudo sets, and the mark by which GitHub's runner finds and kills a
// step's processes.
var carried = []string{
	"PATH", "LANG", "TZ",
	"GITHUB_ACTIONS", "GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_SERVER_URL",
	"GITHUB_JOB", "GITHUB_WORKFLOW", "GITHUB_WORKSPACE",
	"GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STATE", "GITHUB_STEP_SUMMARY",
	"RUNNER_OS", "RUNNER_ARCH", "RUNNER_NAME", "RUNNER_ENVIRONMENT", "RUNNER_TEMP", "RUNNER_DEBUG",
}

// handover gathers what the process behind is to get.
func (a *app) handover() handover {
	h := handover{Env: map[string]string{}, Secrets: a.secrets}
	for _, name := range append(a.set.names(), carried...) {
		if v, ok := os.LookupEnv(name); ok && name != keyVar && name != webhookVar {
			h.Env[name] = v
		}
	}
	return h
}

func writeHandover(w io.Writer, h handover) error {
	line, err := json.Marshal(h)
	if err == nil {
		_, err = w.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("hand the settings over: %w", err)
	}
	return nil
}

// readHandover reads the line. Errors do not repeat what was read.
func readHandover(r *bufio.Reader) (h handover, err error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return h, errors.New("read the settings: standard input ended; this command is started by others")
	}
	if json.Unmarshal(line, &h) != nil {
		return h, errors.New("read the settings: not understood; this command is started by others")
	}
	return h, nil
}
