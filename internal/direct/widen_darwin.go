package direct

import "os"

// widen gives a pipe room for more, which macOS does by itself.
func widen(*os.File) {}
