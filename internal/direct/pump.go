package direct

import "io"

// block is how much is copied at a time. Copying in such blocks, with pipes that hold some
// of them, costs less than letting the kernel move pages between pipe and socket does.
const block = 256 << 10

// pump copies until either end does. Reader and writer are hidden from each other, for they
// know other ways.
func pump(w io.Writer, r io.Reader) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, block))
	return err
}
