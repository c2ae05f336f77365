// Package image makes what the lab's hosts are made of, and keeps it: a Debian
// root file system with Nix, the Tailscale programs, and this project's own
// programs.
//
// An artefact lies in the cache directory under a name that holds a hash of its
// recipe, so a changed recipe never meets an old artefact. It is made in a
// temporary directory beside its final place and renamed when it is whole, while
// a lock file keeps a second process from making it too: a crash leaves rubbish
// that the next attempt sweeps, never half an image.
//
// Life: [Cache.Root] and [Cache.Tailscale] make once and then only answer;
// [Cache.Program] always asks the go command, which knows best whether there is
// something to do. Nobody deletes old artefacts: remove the directory to start
// afresh.
package image
