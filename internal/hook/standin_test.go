package hook_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/Misaka13514/setup-distributed-nix-builds/internal/hook"
)

func notify(c chan<- os.Signal) { signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP) }

// standIn is Nix' own hook for one builder. The builder's URI says how it goes.
func standIn() int {
	if file := os.Getenv("COPY_TO"); file != "" {
		return copyTo(file)
	}
	heard := hook.Hear(os.Stdin)
	set, err := heard.Settings()
	if err != nil {
		fmt.Fprintln(os.Stderr, "stand-in:", err)
		return 1
	}
	line := set("builders")
	uri, _, _ := strings.Cut(line, " ")
	_, manner, _ := strings.Cut(uri, "?")
	say := func(text string) { fmt.Fprintln(os.Stderr, "@nix "+text) }
	fail := func(text string) int {
		say(`{"action":"msg","level":0,"msg":"\u001b[31;1merror:\u001b[0m ` + text + `"}`)
		return 1
	}
	for tries := 1; ; tries++ {
		if _, _, err = heard.Request(); err != nil {
			return 0
		}
		switch {
		case manner == "declines":
			say(`{"action":"msg","level":0,"msg":"cannot build on '` + uri + `': connection refused"}`)
			say(`{"action":"msg","level":1,"msg":"Failed to find a machine for remote build!"}`)
			fmt.Fprintln(os.Stderr, "# decline")
			continue
		case manner == "postpones", manner == "postpones-once" && tries == 1:
			fmt.Fprintln(os.Stderr, "# postpone")
			continue
		case manner == "mute":
			return 0
		}
		break
	}
	fmt.Fprintf(os.Stderr, "# accept\n%s\n", uri)
	for range 2 {
		if _, err := heard.Words(); err != nil {
			return fail("stand-in: " + err.Error())
		}
	}
	say(`{"action":"start","id":7,"level":4,"text":"copying dependencies to '` + uri + `'"}`)
	say(`{"action":"stop","id":7}`)
	say(`{"action":"start","id":8,"level":3,"text":"building on '` + uri + `'"}`)
	say(`{"action":"result","fields":["from ` + uri + `"],"id":8,"type":101}`)
	switch manner {
	case "builds", "postpones-once":
		fmt.Fprintln(os.NewFile(4, "4"), "a word of ssh")
		say(`{"action":"start","fields":["http://peer"],"id":10,"level":4,"parent":0,"text":"downloading 'http://peer'","type":101}`)
		say(`{"action":"stop","id":10}`)
		say(`{"action":"start","id":9,"level":4,"text":"copying outputs from '` + uri + `'"}`)
		host, _, _ := strings.Cut(uri, "?")
		say(`{"action":"msg","level":3,"msg":"copying path '/nix/store/y-a' from '` + host + `'"}`)
		say(`{"action":"stop","id":9}`)
		say(`{"action":"stop","id":8}`)
		return 0
	case "long":
		fmt.Fprintf(os.Stderr, "@nix {\"action\":\"result\",\"fields\":[\"%s\"],\"id\":8,\"type\":101}\n", strings.Repeat("x", 3<<20))
		return 0
	case "fails":
		return fail(`build of '` + drv + `' on '` + uri + `' failed: builder for '` + drv + `' failed with exit code 3`)
	case "is-killed":
		return fail(`build of '` + drv + `' on '` + uri + `' failed: builder for '` + drv + `' failed due to signal 9 (Killed)`)
	case "drops":
		return fail("Nix daemon disconnected unexpectedly (maybe it crashed?)")
	case "odd":
		return fail("the moon over " + uri + " is in the wrong phase")
	case "dies":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "talks":
		for i := 0; ; i++ {
			say(`{"action":"result","fields":["still here"],"id":8,"type":101}`)
			time.Sleep(100 * time.Millisecond)
		}
	case "hangs":
		// What ssh would be. It holds the streams, and no signal but one ends it.
		ssh := exec.Command("sh", "-c", `trap '' TERM INT HUP; echo "@nix {\"action\":\"msg\",\"level\":3,\"msg\":\"ssh is $$\"}" >&2; sleep 600; :`)
		ssh.Stderr, ssh.ExtraFiles = os.Stderr, []*os.File{nil, os.NewFile(4, "4")}
		if err := ssh.Run(); err != nil {
			return fail("ssh: " + err.Error())
		}
	}
	return 1
}

// copyTo writes down all that a hook is told, and answers as one with other builders would.
func copyTo(file string) int {
	f, err := os.Create(file)
	if err != nil {
		return 9
	}
	defer f.Close()
	fmt.Fprintln(os.Stderr, "# decline")
	if _, err := io.Copy(f, os.Stdin); err != nil {
		return 9
	}
	fmt.Fprintln(os.NewFile(4, "4"), "a word of ssh")
	return 42
}
