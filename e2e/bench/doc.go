// Command bench measures what the project promises about time, memory and CPU, and
// prints one table: what was measured, the aim, and what came out.
//
//	go run ./e2e/bench                             all of it
//	go run ./e2e/bench -only '^polls$'             one benchmark
//	go run ./e2e/bench -update docs/benchmarks.md  and put the table into the document
//
// # Life
//
// A [benchmark] has a file of its own. It makes what it measures, measures, and takes it
// all down again before the next one starts: the machine has no other work meanwhile.
// What needs hosts shares one lab, which is made for the first that needs it and is
// removed at the end. Ratios are of two numbers from one run.
//
// Nothing here judges a number but its aim. A result that misses its aim is printed as
// missed and is no failure of the program; a benchmark that can't be carried out is.
//
// The program also plays two parts for itself, in processes of their own: see role.go.
package main
