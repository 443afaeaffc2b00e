package node

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. Its text is "1MiB", "64KB" or a plain number.
type Size int64

// The units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
	TiB Size = 1 << 40
)

// sizeUnit is a suffix of a Size and what it multiplies by.
type sizeUnit struct {
	suffix string
	bytes  Size
}

// sizeUnits lists the suffixes, the longer before those they end in.
func sizeUnits() []sizeUnit {
	return []sizeUnit{
		{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB},
		{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
	}
}

// ParseSize reads the text of a Size.
func ParseSize(text string) (Size, error) {
	number, unit := strings.TrimSpace(text), Size(1)
	for _, u := range sizeUnits() {
		if rest, found := strings.CutSuffix(number, u.suffix); found {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/int64(unit) {
		return 0, errors.New("is not a size: write a whole number and a unit, such as 64KiB or 1MiB")
	}
	return Size(n) * unit, nil
}

// String returns the text with the largest unit that divides s.
func (s Size) String() string {
	for _, u := range sizeUnits()[:4] {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// ParseDuration reads Go's form of durations with days (d) and weeks (w) added,
// each of 24 hours and 7 days.
func ParseDuration(text string) (time.Duration, error) {
	var whole time.Duration
	rest := strings.TrimSpace(text)
	fail := errors.New("is not a duration: write a number and a unit, such as 500ms, 5s, 10m, 2h or 14d")
	if rest == "0" {
		return 0, nil
	}
	for _, u := range []struct {
		suffix string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		head, tail, found := strings.Cut(rest, u.suffix)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(head, 10, 32)
		if err != nil || n < 0 || n > int64(math.MaxInt64/u.length) {
			return 0, fail
		}
		whole += time.Duration(n) * u.length
		rest = tail
	}
	if rest == "" && text != "" && whole > 0 {
		return whole, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || whole+d < whole {
		return 0, fail
	}
	return whole + d, nil
}

// FormatDuration is the inverse of ParseDuration, without units that are zero.
func FormatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// setText gives v, a value that is no struct, the value that text stands for. A
// list takes text as one more element.
func setText(v reflect.Value, text string) error {
	switch target := v.Addr().Interface().(type) {
	case *time.Duration:
		d, err := ParseDuration(text)
		*target = d
		return err
	case *Size:
		s, err := ParseSize(text)
		*target = s
		return err
	case encoding.TextUnmarshaler:
		if err := target.UnmarshalText([]byte(text)); err != nil {
			return errors.New("is not an address range: write CIDR such as 10.0.0.0/8")
		}
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return errors.New("is neither true nor false")
		}
		v.SetBool(text == "true")
	case reflect.Int:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return errors.New("is not a whole number")
		}
		v.SetInt(n)
	case reflect.Slice:
		element := reflect.New(v.Type().Elem()).Elem()
		if err := setText(element, text); err != nil {
			return err
		}
		v.Set(reflect.Append(v, element))
	default:
		return fmt.Errorf("cannot be set: %s has no text form", v.Type())
	}
	return nil
}

// textOf is the inverse of setText for one value; elements of a list are joined
// by commas.
func textOf(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case time.Duration:
		return FormatDuration(value)
	case fmt.Stringer:
		return value.String()
	}
	if v.Kind() == reflect.Slice {
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = textOf(v.Index(i))
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(v.Interface())
}
