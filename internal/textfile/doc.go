// Package textfile keeps one marked block in a text file that belongs to somebody else.
//
// /etc/nix/nix.conf, /etc/nix/machines and root's ssh_config are the user's: other steps
// of the same job edit them while a cluster lives. So nothing is ever backed up and copied
// back. A block stands between two marker lines that carry its name; [File.Put] writes it,
// [File.Filter] takes lines out of it, and [File.Take] cuts exactly that out of the file as
// it is by then:
//
//	# BEGIN nix-builders owner/repo/1/1
//	builders = @/etc/nix/machines
//	# END nix-builders owner/repo/1/1
//
// What Take must know to undo a Put (the last line had no newline, the file or its
// directory did not exist) is written behind the name in the BEGIN line, so it survives
// the process that knew it. Taking what was put gives the original, byte by byte.
//
// A file is replaced in one rename, keeping its mode and owner; a symbolic link stays and
// its target is replaced. Writers in different processes take turns by a lock on the
// file's directory, which leaves no lock file behind.
package textfile
