// Package webhook sends a cluster's events to a receiver, signed as Standard Webhooks has
// it (https://www.standardwebhooks.com).
//
// A Sender takes events from the cluster as fast as they come and puts them into a queue;
// from there they go out one after the other, each tried again with growing pauses until
// the receiver takes it or the tries are used up. The queue is bounded: when a receiver is
// dead or slow the oldest events are dropped and counted. The cluster never waits.
//
//	subscription -> take -> queue -> deliver -> receiver
//
// When Run's context ends, what is queued still goes out, within a bound.
//
// The URL and the secret are credentials. Logs and errors name the receiver's scheme and
// host and nothing else of them.
package webhook
