// Package checks has only tests, which hold the repository's own files to each other: the
// action to the program's settings, workflows to what GitHub reads, README to the files
// that it shows, and packages to who may import whom.
package checks
