// Command flood is a node that has gone bad: it does to a coordinator's API what no builder
// does, as fast as it can, for a time, and then prints what came of it as JSON.
//
//	flood -at ADDRESS:PORT -cluster ID -name NAME -for 3s KIND...
//
// Kinds that are given together run at the same time. Each is bounded in time and in
// number. Who runs it on a host is, to the coordinator, that host's node.
package main
