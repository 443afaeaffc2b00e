package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
)

// machines are the architectures that there are packages for, as Go and ELF name
// them. Debian's names are Go's.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// static returns the program, if it is one that runs on any Linux of its
// architecture: nothing is to be loaded beside it, so that no C library can be too
// old or missing.
func (b *build) static() ([]byte, error) {
	program, err := os.ReadFile(b.program)
	if err != nil {
		return nil, fmt.Errorf("read the program: %w", err)
	}
	if err := checkStatic(program, b.arch); err != nil {
		return nil, fmt.Errorf("%s is not to be packed: %w", b.program, err)
	}
	return program, nil
}

func checkStatic(program []byte, arch string) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("it is no Linux program: %w", err)
	}
	defer f.Close()
	want, known := machines[arch]
	if !known || f.Machine != want {
		return fmt.Errorf("it is for %s and not for %s", f.Machine, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			return fmt.Errorf("it has a %s header, so it needs a loader and libraries: build it with CGO_ENABLED=0", p.Type)
		}
	}
	return nil
}
