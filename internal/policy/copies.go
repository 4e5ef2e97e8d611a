// copies.go refuses expressions that become much larger when they are compiled. Each
// optMap and optFlatMap stands for an expression that has twice what it is called on, so
// that a dozen of them in a row, of 200 bytes, took all of the memory. The type of a map
// has two types in it, and one whose keys are such maps twice as many, again and again. A
// regular expression has as many parts as its counts say.

package policy

import (
	"fmt"
	"slices"

	"github.com/google/cel-go/common"
	celast "github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/parser"
)

// maxCopies is how many operands and operators may be copies. Those of the usual
// expression are five.
const maxCopies = 256

// maxComputedKeys is how many maps may be written down with keys that are no constants.
// The usual expression has none.
const maxComputedKeys = 4

// checkGrowth reads an expression without what optMap and optFlatMap stand for, and counts
// the copies that they would make, the maps whose types could be large, and what patterns
// repeat.
func checkGrowth(field, text string) error {
	p, err := parser.NewParser(parser.EnableOptionalSyntax(true)) // and no macros
	if err != nil {
		return &Error{Field: field, Detail: err.Error()}
	}
	parsed, problems := p.Parse(common.NewTextSource(text))
	if len(problems.GetErrors()) > 0 {
		return &Error{Field: field, Detail: "compilation failed: " + problems.ToDisplayString()}
	}
	var c copies
	if c.size(parsed.Expr()); c > maxCopies {
		return &Error{Field: field, Detail: "optMap and optFlatMap stand for twice what they are called on, and it becomes too large: call them on something short, and not on one another"}
	}
	if computedKeys(parsed.Expr()) > maxComputedKeys {
		return &Error{Field: field, Detail: fmt.Sprintf("more than %d maps are written down with keys that are no constants", maxComputedKeys)}
	}
	if n := patternSizes(parsed.Expr()); n > maxPatternSize {
		return &Error{Field: field, Detail: fmt.Sprintf("regular expressions are too large: %d parts with all repetitions, over the limit of %d", n, maxPatternSize)}
	}
	return nil
}

// patternSizes is how large all patterns are together.
func patternSizes(x celast.Expr) (n uint64) {
	celast.PostOrderVisit(x, celast.NewExprVisitor(func(x celast.Expr) {
		if x.Kind() != celast.CallKind {
			return
		}
		if _, ok := searches[x.AsCall().FunctionName()]; !ok {
			return
		}
		for _, a := range x.AsCall().Args() {
			if a.Kind() == celast.LiteralKind {
				if text, ok := a.AsLiteral().(types.String); ok {
					n += patternSize(string(text))
				}
			}
		}
	}))
	return n
}

// computedKeys counts the maps with keys of which only the compiler knows the type.
func computedKeys(x celast.Expr) (n int) {
	computed := func(e celast.EntryExpr) bool { return e.AsMapEntry().Key().Kind() != celast.LiteralKind }
	celast.PostOrderVisit(x, celast.NewExprVisitor(func(x celast.Expr) {
		if x.Kind() == celast.MapKind && slices.ContainsFunc(x.AsMap().Entries(), computed) {
			n++
		}
	}))
	return n
}

// copies counts them.
type copies int

// size is how many operands and operators an expression stands for, or a part of them
// where there are too many copies.
func (c *copies) size(x celast.Expr) (n int) {
	if *c > maxCopies {
		return 0
	}
	n = 1
	switch x.Kind() {
	case celast.CallKind:
		call := x.AsCall()
		for _, a := range call.Args() {
			n += c.size(a)
		}
		if call.IsMemberFunction() {
			n += c.target(call)
		}
	case celast.SelectKind:
		n += c.size(x.AsSelect().Operand())
	case celast.ListKind:
		for _, e := range x.AsList().Elements() {
			n += c.size(e)
		}
	case celast.MapKind:
		for _, e := range x.AsMap().Entries() {
			n += c.size(e.AsMapEntry().Key()) + c.size(e.AsMapEntry().Value())
		}
	case celast.StructKind:
		for _, f := range x.AsStruct().Fields() {
			n += c.size(f.AsStructField().Value())
		}
	default: // a name or a constant
	}
	return n
}

// target is the size of what a function is called on, once or twice.
func (c *copies) target(call celast.CallExpr) int {
	n := c.size(call.Target())
	if name := call.FunctionName(); name == "optMap" || name == "optFlatMap" {
		*c += copies(n)
		n += n
	}
	return n
}
