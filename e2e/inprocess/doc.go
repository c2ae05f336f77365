// Package inprocess tests the API over a real tailnet that is all in this process: the lab's
// control server, nodes on tsnet, the real server and the real client. It needs no root and
// takes a second. What the nodes may do is what the tailnet says of them and not what a
// test injects.
package inprocess
