package coordinator

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Limit bounds one member of a request. A bound that is not given is zero, or
// empty.
type Limit struct {
	Minimum, Maximum     int64  // of a number, both included
	MinLength, MaxLength int    // of a string, in characters
	Pattern              string // that a string must match, as in RE2 and ECMA 262
	MinItems, MaxItems   int    // of an array
	Unique               bool   // an array holds nothing twice
}

// MaxDetailLength bounds [Departure.Detail], in characters.
const MaxDetailLength = 1024

const (
	maxMemory = 1 << 50 // bytes
	maxStore  = 1 << 60 // bytes
)

// limits bounds the members of a check-in by their JSON Pointer, in which * stands
// for every item of an array. The contract states the same numbers.
var limits = map[string]Limit{
	"/cluster": {MinLength: 1, MaxLength: 512},
	"/name":    {MinLength: 1, MaxLength: 253, Pattern: `^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`},

	"/offer/systems":          {MinItems: 1, MaxItems: 16, Unique: true},
	"/offer/systems/*":        {MinLength: 3, MaxLength: 64, Pattern: `^[a-z0-9_]+-[a-z0-9_]+$`},
	"/offer/cores":            {Minimum: 1, Maximum: 4096},
	"/offer/memory_bytes":     {Minimum: 1, Maximum: maxMemory},
	"/offer/store_free_bytes": {Maximum: maxStore},
	"/offer/features":         {MaxItems: 64, Unique: true},
	"/offer/features/*":       {MinLength: 1, MaxLength: 64, Pattern: `^[A-Za-z0-9._+-]+$`},
	"/offer/nix_version":      {MinLength: 1, MaxLength: 64, Pattern: `^[0-9A-Za-z._+-]+$`},
	"/offer/store_program":    {MinLength: 2, MaxLength: 1024, Pattern: `^/[A-Za-z0-9/._+-]*$`},
	"/offer/host_keys":        {MaxItems: 8},
	"/offer/host_keys/*":      {MinLength: 16, MaxLength: 2048, Pattern: `^[a-z0-9@.-]+ [A-Za-z0-9+/=]+$`},
	"/offer/max_jobs":         {Minimum: 1, Maximum: 4096},
	"/offer/speed_factor":     {Minimum: 1, Maximum: 1000},
	"/offer/store_port":       {Minimum: 1, Maximum: 65535},

	"/vitals/cpu_percent":          {Maximum: 100},
	"/vitals/memory_free_bytes":    {Maximum: maxMemory},
	"/vitals/store_free_bytes":     {Maximum: maxStore},
	"/vitals/builds":               {Maximum: 65536},
	"/vitals/store_total_bytes":    {Maximum: maxStore},
	"/vitals/memory_stall_percent": {Maximum: 100},
	"/vitals/io_stall_percent":     {Maximum: 100},
	"/vitals/peak_builds":          {Maximum: 65536},
	"/vitals/busy_seconds":         {Maximum: 1e9},
}

// patterns are the compiled patterns of limits.
var patterns = func() map[string]*regexp.Regexp {
	compiled := make(map[string]*regexp.Regexp)
	for _, l := range limits {
		if l.Pattern != "" {
			compiled[l.Pattern] = regexp.MustCompile(l.Pattern)
		}
	}
	return compiled
}()

// Limits returns the bounds of a check-in's members by their JSON Pointer, in which
// * stands for every item of an array.
func Limits() map[string]Limit { return maps.Clone(limits) }

// Validate returns the first member whose value can't be, or nil.
func (in *CheckIn) Validate() *FieldError {
	if err := limits["/cluster"].text("/cluster", in.Cluster); err != nil {
		return err
	}
	if err := limits["/name"].text("/name", in.Name); err != nil {
		return err
	}
	if in.Instance == uuid.Nil {
		return &FieldError{"/instance", "is the nil UUID: draw a random one for each process"}
	}
	if err := in.Offer.validate(); err != nil {
		return err
	}
	if in.Vitals == nil {
		return nil
	}
	return in.Vitals.validate()
}

func (o *Offer) validate() *FieldError {
	checks := []*FieldError{
		texts("/offer/systems", o.Systems),
		number("/offer/cores", int64(o.Cores)),
		number("/offer/memory_bytes", o.MemoryBytes),
		number("/offer/store_free_bytes", o.StoreFreeBytes),
		texts("/offer/features", o.Features),
		limits["/offer/nix_version"].text("/offer/nix_version", o.NixVersion),
		limits["/offer/store_program"].text("/offer/store_program", o.StoreProgram),
		texts("/offer/host_keys", o.HostKeys),
		optional("/offer/max_jobs", o.MaxJobs),
		optional("/offer/speed_factor", o.SpeedFactor),
		optional("/offer/store_port", o.StorePort),
	}
	return first(checks)
}

func (v *Vitals) validate() *FieldError {
	return first([]*FieldError{
		fraction("/vitals/cpu_percent", v.CPUPercent),
		number("/vitals/memory_free_bytes", v.MemoryFreeBytes),
		number("/vitals/store_free_bytes", v.StoreFreeBytes),
		number("/vitals/builds", int64(v.Builds)),
		optional("/vitals/peak_builds", v.PeakBuilds),
		optionalFraction("/vitals/busy_seconds", v.BusySeconds),
		optional("/vitals/store_total_bytes", v.StoreTotalBytes),
		optionalFraction("/vitals/memory_stall_percent", v.MemoryStallPercent),
		optionalFraction("/vitals/io_stall_percent", v.IOStallPercent),
	})
}

// Validate returns the first member whose value can't be, or nil.
func (d Departure) Validate() *FieldError {
	switch d.Reason {
	case DepartTeardown, DepartTimeout, DepartCancelled, DepartFailed:
	default:
		return &FieldError{"/reason", "is none of teardown, timeout, cancelled, failed"}
	}
	if err := (Limit{MaxLength: MaxDetailLength}).text("/detail", d.Detail); err != nil || d.Vitals == nil {
		return err
	}
	return d.Vitals.validate()
}

// text checks a string at the pointer.
func (l Limit) text(pointer, value string) *FieldError {
	n := utf8.RuneCountInString(value)
	switch {
	case n < l.MinLength || n > l.MaxLength:
		return &FieldError{pointer, fmt.Sprintf("has %d characters: give %d to %d", n, l.MinLength, l.MaxLength)}
	case !utf8.ValidString(value):
		return &FieldError{pointer, "is not UTF-8"}
	case l.Pattern != "" && !patterns[l.Pattern].MatchString(value):
		return &FieldError{pointer, "does not match " + l.Pattern}
	}
	return nil
}

// texts checks an array of strings at the pointer.
func texts(pointer string, values []string) *FieldError {
	l := limits[pointer]
	if n := len(values); n < l.MinItems || n > l.MaxItems {
		return &FieldError{pointer, fmt.Sprintf("has %d items: give %d to %d", n, l.MinItems, l.MaxItems)}
	}
	for i, value := range values {
		at := fmt.Sprintf("%s/%d", pointer, i)
		if err := limits[pointer+"/*"].text(at, value); err != nil {
			return err
		}
		if l.Unique && slices.Contains(values[:i], value) {
			return &FieldError{at, "is there twice"}
		}
	}
	return nil
}

// number checks an integer at the pointer.
func number(pointer string, value int64) *FieldError {
	if l := limits[pointer]; value < l.Minimum || value > l.Maximum {
		return &FieldError{pointer, fmt.Sprintf("is %d: give %d to %d", value, l.Minimum, l.Maximum)}
	}
	return nil
}

// optional checks an integer at the pointer that need not be there.
func optional[T int | int64](pointer string, value *T) *FieldError {
	if value == nil {
		return nil
	}
	return number(pointer, int64(*value))
}

// fraction checks a number at the pointer that need not be whole.
func fraction(pointer string, value float64) *FieldError {
	l := limits[pointer]
	// Not "value < min || value > max", which NaN would pass.
	if !(value >= float64(l.Minimum) && value <= float64(l.Maximum)) {
		return &FieldError{pointer, fmt.Sprintf("is %v: give %d to %d", value, l.Minimum, l.Maximum)}
	}
	return nil
}

// optionalFraction checks a number at the pointer that need not be there.
func optionalFraction(pointer string, value *float64) *FieldError {
	if value == nil {
		return nil
	}
	return fraction(pointer, *value)
}

func first(errs []*FieldError) *FieldError {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
