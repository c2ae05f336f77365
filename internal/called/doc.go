// Package called has the commands that Nix calls for each build. How long their program takes
// to start is part of the time that every build takes, and so it is linked with little else:
// nix-builders-hook is these commands alone. In nix-builders they are among others.
package called
