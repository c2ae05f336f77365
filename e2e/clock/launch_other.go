//go:build !linux || !amd64

package main

import "errors"

func launch(string, []string) error { return errors.ErrUnsupported }

func answer(string) error { return errors.ErrUnsupported }
