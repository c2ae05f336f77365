// Package measure is what benchmarks note their numbers in: a [Row] for each thing that is
// measured, the [Machine] that the numbers depend on, and the place in a document where
// the table of the last run stands.
//
// Nothing here judges a number but its row's aim: a result that misses it is no failure.
package measure
