// queries.mjs asks Prometheus what a panel asks, and gives the answers as data frames,
// as Grafana's data source for Prometheus would.
import { createDataFrame, FieldType } from '@grafana/data'

async function get(prometheus, path, parameters) {
  const response = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`)
  const answer = await response.json()
  if (answer.status !== 'success') {
    throw new Error(`Prometheus: ${answer.error}: ${JSON.stringify(parameters)}`)
  }
  return answer.data
}

const number = (text) => (text === undefined ? null : Number(text.replace('Inf', 'Infinity')))
const legend = (format, labels) => format.replace(/{{\s*(\w+)\s*}}/g, (_, name) => labels[name] ?? '')

// valuesOf are those of a variable whose query is label_values(...).
export async function valuesOf(prometheus, definition, range) {
  const [, series, label] = definition.match(/^label_values\((.*), (\w+)\)$/)
  return get(prometheus, `label/${label}/values`, { 'match[]': series, start: range.from / 1000, end: range.to / 1000 })
}

// framesOf are the answers to all queries of a panel.
export async function framesOf(prometheus, targets, range, step) {
  const answers = await Promise.all(targets.map((target) => (target.instant ? instant : overTime)(prometheus, target, range, step)))
  return answers.flatMap((results, n) => targets[n].format === 'table'
    ? table(targets[n], results, range, targets.length)
    : results.map((result) => series(targets[n], result)))
}

async function overTime(prometheus, target, range, step) {
  const start = Math.ceil(range.from / 1000 / step) * step
  const end = Math.floor(range.to / 1000 / step) * step
  const { result } = await get(prometheus, 'query_range', { query: target.expr, start, end, step })
  const times = Array.from({ length: (end - start) / step + 1 }, (_, n) => start + n * step)
  return result.map(({ metric, values }) => {
    const at = new Map(values)
    return { metric, times, values: times.map((t) => at.get(t)) }
  })
}

async function instant(prometheus, target, range) {
  const { result } = await get(prometheus, 'query', { query: target.expr, time: range.to / 1000 })
  return result.map(({ metric, value }) => ({ metric, times: [value[0]], values: [value[1]] }))
}

function series(target, { metric, times, values }) {
  const { __name__: name, ...labels } = metric
  const shown = target.legendFormat ? legend(target.legendFormat, metric) : undefined
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: times.map((t) => t * 1000), config: { interval: (times[1] - times[0]) * 1000 || undefined } },
      { name: name ?? 'Value', type: FieldType.number, labels, values: values.map(number), config: { displayNameFromDS: shown } },
    ],
  })
}

function table(target, results, range, queries) {
  const value = queries > 1 ? `Value #${target.refId}` : 'Value'
  const labels = [...new Set(results.flatMap(({ metric }) => Object.keys(metric)))].sort()
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: results.map(() => range.to) },
      ...labels.map((l) => ({ name: l, type: FieldType.string, values: results.map(({ metric }) => metric[l] ?? '') })),
      { name: value, type: FieldType.number, values: results.map(({ values }) => number(values[0])) },
    ],
  })
}
