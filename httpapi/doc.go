// Package httpapi serves a cluster's API on the tailnet.
//
// openapi.yaml is the contract; tests hold the routes to it, and every request and answer
// that they make. A request passes, in this order:
//
//	connection   bounded in number, in all and per address; closed when it stays silent
//	log, metrics one line and one count each, the lines up to a rate; what ends as it should
//	             after a wait is debug
//	guard        is the request for us, and not from a web page of another origin?
//	only         who calls, by the tailnet's word (WhoIs), may they make this call, and do they
//	             make too many?
//	handler      parse, call the domain, render
//
// Nobody's body is read before it is known who they are. A handler returns an error rather
// than answer with it: problem.go has the one table from errors to problems, and what is
// not in it is a 500 without detail.
//
// Every wait is bounded: a request's head, its body and each write of an answer have a time;
// a long poll has the time that it asked for. When Serve ends, what waits is answered first:
// a poll that nothing happened, a stream that it is over.
//
// The package knows no tailnet: identity is the function Config.WhoIs.
package httpapi
