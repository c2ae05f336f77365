// Package coordinator is the domain: a cluster, its builders and their leases.
package coordinator
