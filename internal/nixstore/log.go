package nixstore

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/nix-community/go-nix/pkg/wire"
)

// What stands before the answer to an operation: the daemon's log, which ends with one of
// the first two.
const (
	logLast          = 0x616c7473
	logError         = 0x63787470
	logNext          = 0x6f6c6d67
	logStartActivity = 0x53545254
	logStopActivity  = 0x53544f50
	logResult        = 0x52534c54
)

// The kinds of fields that activities have.
const (
	fieldNumber = 0
	fieldString = 1
)

// An Error is what the daemon says went wrong, in its words, on one line. The connection is
// as good as before.
type Error struct{ Message string }

func (e *Error) Error() string { return e.Message }

// readLog reads the log up to its end, and drops it but for an error.
func (c *Conn) readLog() error {
	for range maxEvents {
		word, err := wire.ReadUint64(c.r)
		if err != nil {
			return err
		}
		switch word {
		case logLast:
			return nil
		case logError:
			return c.readError()
		case logNext:
			err = c.skip("s")
		case logStartActivity:
			err = c.skip("nnnsfn")
		case logStopActivity:
			err = c.skip("n")
		case logResult:
			err = c.skip("nnf")
		default:
			return fmt.Errorf("the daemon's log has the unknown word %#x", word)
		}
		if err != nil {
			return err
		}
	}
	return errors.New("the daemon's log has no end")
}

// readError reads an error: its type, level, name and message, where it was, and the traces
// that led there.
func (c *Conn) readError() error {
	if err := c.skip("sns"); err != nil {
		return err
	}
	message, err := wire.ReadString(c.r, maxString)
	if err != nil {
		return err
	}
	if err := c.skip("n"); err != nil {
		return err
	}
	traces, err := c.count()
	if err != nil {
		return err
	}
	for range traces {
		if err := c.skip("ns"); err != nil {
			return err
		}
	}
	return &Error{oneLine(message)}
}

// skip reads what nobody needs: for each letter of shape a number, a string, or the fields
// of an activity.
func (c *Conn) skip(shape string) error {
	for _, kind := range shape {
		var err error
		switch kind {
		case 'n':
			_, err = wire.ReadUint64(c.r)
		case 's':
			_, err = wire.ReadString(c.r, maxString)
		case 'f':
			err = c.skipFields()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) skipFields() error {
	n, err := c.count()
	if err != nil {
		return err
	}
	for range n {
		kind, err := wire.ReadUint64(c.r)
		if err != nil {
			return err
		}
		switch kind {
		case fieldNumber:
			err = c.skip("n")
		case fieldString:
			err = c.skip("s")
		default:
			err = fmt.Errorf("the daemon's log has a field of the unknown kind %d", kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// count reads how many of something follow.
func (c *Conn) count() (int, error) {
	n, err := wire.ReadUint64(c.r)
	if err != nil {
		return 0, err
	}
	if n > maxItems {
		return 0, fmt.Errorf("the daemon counts %d items, more than %d", n, maxItems)
	}
	return int(n), nil
}

// colours are what Nix paints its messages with.
var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

func oneLine(message string) string {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, colours.ReplaceAllString(message, ""))
	return strings.Join(strings.Fields(plain), " ")
}
