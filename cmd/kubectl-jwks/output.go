// output.go writes tables, ages, JSON and YAML.

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"
)

// outputFlag adds -o to a command, with these forms besides json and yaml.
func outputFlag(cmd *cobra.Command, output *string, also ...string) {
	forms := append([]string{"json", "yaml"}, also...)
	cmd.Flags().StringVarP(output, "output", "o", "", "Form of the output: "+strings.Join(forms, ", ")+"; for people without it")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if *output != "" && !slices.Contains(forms, *output) {
			return advise("Choose one of: "+strings.Join(forms, ", ")+".", "--output: %q is none of the forms", *output)
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
}

// structured reports whether the output is for programs.
func structured(output string) bool { return output == "json" || output == "yaml" }

// encode writes a value as JSON or YAML.
func encode(w io.Writer, output string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if output == "yaml" {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(w, strings.TrimSuffix(string(text), "\n"))
	return err
}

// table writes rows in columns, each line after indent.
func table(w io.Writer, indent string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, indent+strings.Join(row, "\t"))
	}
	return t.Flush()
}

// plain makes text that others had a part in safe for a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

// short cuts text for a column.
func short(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// age is how long ago a time was, as kubectl writes it; "-" for never.
func age(t *metav1.Time, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration.HumanDuration(max(0, now.Sub(t.Time)))
}

// ahead is how long it is until a time, or that it has passed; "-" for never.
func ahead(t *metav1.Time, now time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case t.After(now):
		return "in " + duration.HumanDuration(t.Sub(now))
	}
	return duration.HumanDuration(now.Sub(t.Time)) + " ago"
}

// nextTry is how long it is until the next refresh. One whose time has passed is being
// tried again ever more rarely, and status is not written for each try.
func nextTry(t *metav1.Time, now time.Time) string {
	if !t.IsZero() && !t.After(now) {
		return "due"
	}
	return ahead(t, now)
}

// orDash is the text, or "-" for none.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// count is a number of things: 1 key, 2 keys.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
