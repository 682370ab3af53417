// Package config reads the settings of the three programs: from the environment, then from a file .env in the working
// directory, then their defaults. It validates all of them at once, and changes the job types' Definitions as they say.
//
// The settings are one list, in settings.go. Help texts, docs/settings.md, .env.example and the environment in
// docker-compose.yml follow from it.
//
// It decides nothing else and connects to nothing.
package config

//go:generate go run ./generate ../..
