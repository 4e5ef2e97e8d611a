package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-licenses/v2/licenses"
	. "github.com/onsi/gomega"
)

// mit is a licence as people write it.
const mit = `MIT License

Copyright (c) 2026 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`

// unlicense is a licence that is fine, and yet not on the list.
const unlicense = `This is free and unencumbered software released into the public domain.

Anyone is free to copy, modify, publish, use, compile, sell, or
distribute this software, either in source code form or as a compiled
binary, for any purpose, commercial or non-commercial, and by any
means.

In jurisdictions that recognize copyright laws, the author or authors
of this software dedicate any and all copyright interest in the
software to the public domain. We make this dedication for the benefit
of the public at large and to the detriment of our heirs and
successors. We intend this dedication to be an overt act of
relinquishment in perpetuity of all present and future rights to this
software under copyright law.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND,
EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS BE LIABLE FOR ANY CLAIM, DAMAGES OR
OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR
OTHER DEALINGS IN THE SOFTWARE.

For more information, please refer to <http://unlicense.org/>
`

// TestLicencesOfAModule reads a module as it lies in Go's cache.
func TestLicencesOfAModule(t *testing.T) {
	g := NewWithT(t)
	classifier, err := licenses.NewClassifier()
	g.Expect(err).NotTo(HaveOccurred())
	cache := t.TempDir()
	write(t, cache, map[string]string{
		"example.com/!good/m@v1.0.0/LICENSE":            mit,
		"example.com/!good/m@v1.0.0/NOTICE":             "Made by Somebody\r\n",
		"example.com/!good/m@v1.0.0/license.go":         "package m",
		"example.com/!good/m@v1.0.0/README.md":          "read me",
		"example.com/!good/m@v1.0.0/forked/LICENSE":     mit,
		"example.com/two@v1.0.0/LICENSE":                mit,
		"example.com/two@v1.0.0/LICENSE.other":          unlicense,
		"example.com/strange@v1.0.0/LICENSE":            mit,
		"example.com/strange@v1.0.0/LICENSE.enterprise": "Ask us.",
	})
	look := func(file string) (library, error) {
		return read(classifier, cache, &licenses.Library{LicenseFile: filepath.Join(cache, filepath.FromSlash(file))})
	}

	l, err := look("example.com/!good/m@v1.0.0/LICENSE")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(l).To(Equal(library{module: "example.com/Good/m", version: "v1.0.0", licenses: []string{"MIT"}, texts: []string{mit, "Made by Somebody\n"}}))
	g.Expect(checkLicenses([]library{l})).To(Succeed())

	forked, err := look("example.com/!good/m@v1.0.0/forked/LICENSE")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(forked.name()).To(Equal("example.com/Good/m/forked"))

	two, err := look("example.com/two@v1.0.0/LICENSE")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(two.licenses).To(Equal([]string{"MIT", "Unlicense"}))
	g.Expect(checkLicenses([]library{l, two})).To(MatchError(And(ContainSubstring("example.com/two: Unlicense"), Not(ContainSubstring("Good")))))

	_, err = look("example.com/strange@v1.0.0/LICENSE")
	g.Expect(err).To(MatchError(ContainSubstring("LICENSE.enterprise is no licence that is known")))
	_, err = read(classifier, cache, &licenses.Library{Packages: []string{"example.com/none"}})
	g.Expect(err).To(MatchError(ContainSubstring("example.com/none has no licence")))
	_, err = read(classifier, t.TempDir(), &licenses.Library{LicenseFile: filepath.Join(cache, "example.com/two@v1.0.0/LICENSE")})
	g.Expect(err).To(MatchError(ContainSubstring("is in no module")))
	g.Expect(checkLicenses([]library{{module: "example.com/unknown"}})).To(MatchError(ContainSubstring("example.com/unknown: unknown")))
}

func TestTextsOfLicencesAreSharedAndHaveNoVersions(t *testing.T) {
	g := NewWithT(t)
	text := string(licenseTexts([]library{
		{module: "a", version: "v1.0.0", licenses: []string{"MIT"}, texts: []string{"The text"}},
		{module: "b", folder: "c", licenses: []string{"MIT"}, texts: []string{"  The\n  text\n"}},
		{module: "d", licenses: []string{"ISC", "MIT"}, texts: []string{"One", "Notice"}},
	}))
	g.Expect(text).To(ContainSubstring("=\na\nb/c\n\nMIT\n\nThe text\n"))
	g.Expect(text).To(MatchRegexp(`=\nd\n\nISC, MIT\n\nOne\n-+\n\nNotice\n$`))
	g.Expect(text).NotTo(ContainSubstring("v1.0.0"))
	table, err := licenseTable([]library{{module: "d", version: "v2.0.0", licenses: []string{"ISC", "MIT"}}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(table)).To(Equal("library,version,licenses\nd,v2.0.0,ISC AND MIT\n"))
}

// TestLookingAtLicencesLeavesTheProcessAsItWas: the finder reads environment and folder.
func TestLookingAtLicencesLeavesTheProcessAsItWas(t *testing.T) {
	g := NewWithT(t)
	before, err := os.Getwd()
	g.Expect(err).NotTo(HaveOccurred())
	t.Setenv("STAYS", "yes")
	leave, err := enter(t.TempDir(), []string{"GOOS=plan9"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.Environ()).To(Equal([]string{"GOOS=plan9"}))
	leave()
	g.Expect(os.Getwd()).To(Equal(before))
	g.Expect(os.Getenv("STAYS")).To(Equal("yes"))
	g.Expect(os.Getenv("GOOS")).NotTo(Equal("plan9"))
}
