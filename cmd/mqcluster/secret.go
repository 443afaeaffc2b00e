package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// maxSecret is the longest password that MQTT can carry, in bytes
// [MQTT-1.5.6].
const maxSecret = 65535

// passwordFlags say where a password comes from; never from an argument.
type passwordFlags struct {
	file  string
	stdin bool
}

func (p *passwordFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.file, "password-file", "", "file whose first line is the password")
	cmd.Flags().BoolVar(&p.stdin, "stdin", false, "read the password from standard input")
	cmd.Flags().Var(refusedPassword{}, "password", "")
	_ = cmd.Flags().MarkHidden("password")
}

// refusedPassword is a flag that tells why it does not exist.
type refusedPassword struct{}

// String returns nothing.
func (refusedPassword) String() string { return "" }

// Type names the value in the help.
func (refusedPassword) Type() string { return "never" }

// errPasswordArgument is told without the argument itself, which would go to the
// screen and into logs.
var errPasswordArgument = errors.New("a password among the arguments can be read by every user of this machine: use --password-file, standard input or the prompt")

// Set refuses.
func (refusedPassword) Set(string) error { return errPasswordArgument }

// readNew returns a new password: from the file, from standard input, or typed
// twice.
func (p *passwordFlags) readNew(a *App) ([]byte, error) {
	if p.file != "" || p.stdin {
		return p.readGiven(a)
	}
	first, err := a.prompt("New password: ")
	if err != nil {
		return nil, err
	}
	second, err := a.prompt("The same again: ")
	if err != nil {
		return nil, err
	}
	defer clear(second)
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two passwords differ: nothing was changed; try again")
	}
	return checkSecret(first)
}

// readGiven returns the password of the file or of standard input.
func (p *passwordFlags) readGiven(a *App) ([]byte, error) {
	if p.file != "" && p.stdin {
		return nil, usagef("--password-file and --stdin exclude each other: give one")
	}
	if p.stdin || p.file == "-" {
		return readSecret(a.In)
	}
	file, err := os.Open(p.file)
	if err != nil {
		return nil, fmt.Errorf("the password file cannot be read: %w", err)
	}
	defer file.Close()
	return readSecret(file)
}

// prompt asks on the terminal, without echo.
func (a *App) prompt(question string) ([]byte, error) {
	file, is := a.In.(*os.File)
	if !is || !term.IsTerminal(int(file.Fd())) {
		return nil, errors.New("there is no terminal to ask for the password: use --password-file or --stdin")
	}
	fmt.Fprint(a.Err, question)
	// A signal that ends the process must not leave the terminal without echo.
	before, err := term.GetState(int(file.Fd()))
	if err != nil {
		return nil, fmt.Errorf("the terminal cannot be read: %w", err)
	}
	text, err := term.ReadPassword(int(file.Fd()))
	_ = term.Restore(int(file.Fd()), before)
	fmt.Fprintln(a.Err)
	if err != nil {
		return nil, fmt.Errorf("the password was not read: %w", err)
	}
	return text, nil
}

// readSecret returns the first line of r.
func readSecret(r io.Reader) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxSecret+3))
	if err != nil {
		return nil, fmt.Errorf("the secret cannot be read: %w", err)
	}
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("the secret has more than one line: give a file or stream with one")
	}
	return checkSecret(bytes.TrimSuffix(line, []byte("\r")))
}

func checkSecret(text []byte) ([]byte, error) {
	switch {
	case len(text) == 0:
		return nil, errors.New("the secret is empty: give one")
	case len(text) > maxSecret:
		return nil, fmt.Errorf("the secret is longer than the %d bytes that MQTT carries: shorten it", maxSecret)
	}
	return text, nil
}

// quoted returns text as one word of a shell.
func quoted(text string) string {
	if text != "" && strings.IndexFunc(text, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:,@%", r)
	}) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
