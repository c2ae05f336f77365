package release

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"time"
)

// An archive is a compressed tar file whose bytes depend on what is put into it alone.
type archive struct {
	gz  *gzip.Writer
	tar *tar.Writer
}

func newArchive(w io.Writer) *archive {
	gz := gzip.NewWriter(w) // its header has neither a name nor a time
	return &archive{gz: gz, tar: tar.NewWriter(gz)}
}

// header is that of an entry: root's, of one time, in the format that every tar knows.
// Some tar programs complain of times before 1980.
func header(name string, mode int64) *tar.Header {
	return &tar.Header{Name: name, Mode: mode, ModTime: time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC), Format: tar.FormatUSTAR}
}

func (a *archive) file(name string, mode int64, text []byte) error {
	h := header(name, mode)
	h.Typeflag, h.Size = tar.TypeReg, int64(len(text))
	if err := a.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("archive: %s: %w", name, err)
	}
	_, err := a.tar.Write(text)
	return err
}

func (a *archive) symlink(name, target string) error {
	h := header(name, 0o777)
	h.Typeflag, h.Linkname = tar.TypeSymlink, target
	if err := a.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("archive: %s: %w", name, err)
	}
	return nil
}

// close ends the archive. Its writer stays open.
func (a *archive) close() error {
	if err := a.tar.Close(); err != nil {
		return err
	}
	return a.gz.Close()
}
